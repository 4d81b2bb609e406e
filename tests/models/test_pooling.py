"""Generalised-mean pooling: between the mean and the maximum, safe at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dex_jax import models
from dex_jax.models._layers import generalized_mean


def by_loops(feature_map: np.ndarray, power: float) -> np.ndarray:
    B, h, w, C = feature_map.shape
    pooled = np.zeros((B, C))
    for b in range(B):
        for c in range(C):
            values = [feature_map[b, i, j, c] for i in range(h) for j in range(w)]
            pooled[b, c] = np.mean([v**power for v in values]) ** (1 / power)
    return pooled


def test_arithmetic_by_hand():
    x = jnp.array([1.0, 2.0, 3.0])
    for power, expected in ((1.0, 2.0), (2.0, (14 / 3) ** 0.5), (3.0, 12 ** (1 / 3))):
        value = generalized_mean(x, power=jnp.array(power), axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("power", [1.0, 3.0, 6.5])
def test_parts_equal_the_loops(rng, power: float):
    x = rng.uniform(0.01, 5, size=(2, 4, 6, 4))
    # Two halves of the channels, three of the columns, and the whole map.
    pooled = models.parts.pool(
        jnp.asarray(x, jnp.float32), (2, 1, 3), power=jnp.array(power)
    )
    columns = [by_loops(x[:, :, i : i + 2], power) for i in (0, 2, 4)]
    expected = [c[:, half] for half in (slice(2), slice(2, 4)) for c in columns]
    for part, value in zip(pooled, [*expected, by_loops(x, power)], strict=True):
        np.testing.assert_allclose(part, value, rtol=1e-5)


def test_a_large_power_nears_the_maximum_and_small_ones_are_held_at_the_mean(rng):
    x = jnp.asarray(rng.uniform(0, 100, size=(50, 3)), jnp.float32)
    near = generalized_mean(x, power=jnp.array(1000.0), axis=0)
    np.testing.assert_allclose(near, jnp.max(x, axis=0), rtol=5e-3)
    for power in (0.5, -1.0):
        mean = generalized_mean(x, power=jnp.array(power), axis=0)
        np.testing.assert_allclose(mean, jnp.mean(x, axis=0), rtol=1e-5)


def test_gradients_are_those_of_differences(rng):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.uniform(0.1, 2, size=(3, 4)))

        def pooled(x: jax.Array, power: jax.Array) -> jax.Array:
            return generalized_mean(x, power=power, axis=0)

        check_grads(pooled, (x, jnp.array(3.0)), order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("fill", [0.0, -2.0, 1e4])
@pytest.mark.parametrize("power", [1.0, 3.0, 40.0])
def test_value_and_gradient_are_finite_at_the_edges(fill: float, power: float, dtype):
    x = jnp.full((9, 2), fill, dtype)

    def total(x: jax.Array, power: jax.Array) -> jax.Array:
        return jnp.sum(generalized_mean(x, power=power, axis=0))

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    value, (slope, power_slope) = run(x, jnp.array(power))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 2 * max(fill, 1e-6), rtol=1e-2)
    assert slope.dtype == dtype
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.isfinite(power_slope)
    if fill <= 0:  # a dead channel has nothing to learn from
        np.testing.assert_array_equal(slope, 0)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="pooling: expected one of 'max', 'gem'"):
        models.build("resnet_slim", num_classes=2, pooling="mean")
    with pytest.raises(ValueError, match="classifier: expected one of 'linear'"):
        models.build("resnet_slim", num_classes=2, classifier="arcface")
