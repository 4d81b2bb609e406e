"""The closed form of the gradient against the chain rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.models._normalization import normalize

EPSILON = 1e-3


def _chain(x, scale, bias, own: int):
    """The definition, for JAX to differentiate."""
    if x.ndim == 4:
        image_mean = x[..., :own].mean((1, 2), keepdims=True)
        image_var = x[..., :own].var((1, 2), keepdims=True)
        first = (x[..., :own] - image_mean) / jnp.sqrt(image_var + EPSILON)
        rest = x[..., own:]
        mean, var = rest.mean((0, 1, 2), keepdims=True), rest.var((0, 1, 2))
        last = (rest - mean) / jnp.sqrt(var[None, None, None] + EPSILON)
        value = jnp.concatenate([first, last], axis=3)
    else:
        mean = x.mean(0, keepdims=True)
        value = (x - mean) / jnp.sqrt(x.var(0, keepdims=True) + EPSILON)
    lead = (None,) * (x.ndim - scale.ndim)
    return value * scale[lead] + (0 if bias is None else bias[lead])


@pytest.mark.parametrize(
    ("shape", "kept", "own", "has_bias"),
    [
        ((3, 4, 5, 6), (6,), 0, True),
        ((3, 4, 5, 6), (6,), 2, True),
        ((2, 3, 3, 4), (4,), 4, True),
        ((5, 2, 3), (2, 3), 0, False),
    ],
)
def test_values_and_gradients(rng, shape, kept, own: int, has_bias: bool):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=shape) + 3)
        scale, bias = jnp.asarray(rng.normal(size=(2, *kept)))
        weights = jnp.asarray(rng.normal(size=shape))
        arguments = (x, scale, bias) if has_bias else (x, scale)

        def ours(x, scale, bias=None):
            y, mean, var = normalize(x, scale, bias, epsilon=EPSILON, own=own)
            # The statistics have no gradient, whatever is made of them.
            return jnp.sum(y * weights) + jnp.sum(mean) + jnp.sum(var), y

        def theirs(x, scale, bias=None):
            y = _chain(x, scale, bias, own)
            return jnp.sum(y * weights), y

        over = tuple(range(len(arguments)))
        got, want = (
            jax.jit(jax.grad(each, over, has_aux=True))(*arguments)
            for each in (ours, theirs)
        )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_bfloat16_statistics_are_float32():
    # A mean of 100.25, which bfloat16 cannot hold: its values go in steps of 0.5.
    x = jnp.array([[100.0], [100.0], [100.0], [101.0]], jnp.bfloat16)
    y, mean, variance = normalize(x, jnp.ones(1), None, epsilon=0.0)
    assert y.dtype == jnp.bfloat16
    assert mean.tolist() == [[100.25]]
    assert variance.tolist() == [[0.1875]]
