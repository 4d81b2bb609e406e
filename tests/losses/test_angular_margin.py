"""ArcFace's logits against angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dex_jax.losses import additive_angular_margin, label_smoothed_cross_entropy


def by_angles(
    cosines: np.ndarray, labels: np.ndarray, margin: float, scale: float
) -> np.ndarray:
    logits = scale * cosines
    for row, label in enumerate(labels):
        theta = np.arccos(cosines[row, label])
        turned = np.cos(theta + margin)
        if theta + margin >= np.pi:
            turned = np.cos(theta) - margin * np.sin(margin)
        logits[row, label] = scale * turned
    return logits


def test_arithmetic_by_hand():
    # 0, 60 and 90 degrees from the true class, each turned by 30.
    cosines = jnp.array([[1.0, 0.2], [0.5, 0.2], [0.0, 0.2]])
    logits = additive_angular_margin(
        cosines, jnp.zeros(3, int), margin=np.pi / 6, scale=2.0
    )
    expected = [[2 * 0.75**0.5, 0.4], [0.0, 0.4], [-1.0, 0.4]]
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, np.pi / 2])
def test_it_equals_the_angles(rng, margin: float):
    cosines = rng.uniform(-1, 1, size=(50, 5))
    labels = rng.integers(0, 5, 50)
    expected = by_angles(cosines.copy(), labels, margin, 30.0)
    arguments = jnp.asarray(cosines, jnp.float32), jnp.asarray(labels)
    logits = additive_angular_margin(*arguments, margin=margin, scale=30.0)
    np.testing.assert_allclose(logits, expected, atol=2e-4)


def test_the_true_logit_falls_with_the_angle():
    cosines = jnp.linspace(1, -1, 401)[:, None]
    logits = additive_angular_margin(cosines, jnp.zeros(401, int), margin=0.5)[:, 0]
    assert jnp.all(jnp.diff(logits) < 0)


def test_gradient_is_that_of_differences_and_finite_at_the_ends():
    labels = jnp.array([0, 1])

    def loss(cosines: jax.Array) -> jax.Array:
        logits = additive_angular_margin(cosines, labels, margin=0.5, scale=8.0)
        return label_smoothed_cross_entropy(logits, labels)

    with jax.enable_x64(True):
        inner = jnp.array([[0.4, -0.3, 0.1], [0.2, -0.95, 0.6]])
        check_grads(loss, (inner,), order=1, modes=["rev"])
    ends = jnp.array([[1.0, -1.0, 1.0], [1.0, -1.0, 1.0]])
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(ends)))


def test_options_are_traced_and_bfloat16_is_widened():
    cosines, labels = jnp.array([[0.5, 0.2]]), jnp.array([0])

    def logits(margin: jax.Array, scale: jax.Array) -> jax.Array:
        return additive_angular_margin(cosines, labels, margin=margin, scale=scale)

    swept = jax.vmap(logits)(jnp.array([0.1, 0.3]), jnp.array([10.0, 20.0]))
    one = additive_angular_margin(cosines, labels, margin=0.3, scale=20.0)
    np.testing.assert_allclose(swept[1], one, rtol=1e-6)
    narrow = additive_angular_margin(cosines.astype(jnp.bfloat16), labels)
    assert narrow.dtype == jnp.float32


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((2, 3, 4), {}, r"cosines: expected \[B, C\], got shape \(2, 3, 4\)"),
        ((3, 2), {}, r"labels: expected shape \(3,\), got \(2,\)"),
        (
            (2, 3),
            {"margin": 2.0},
            "margin: expected a number of at least 0 and at most 1.57",
        ),
        ((2, 3), {"margin": -0.1}, "margin: .* got -0.1"),
        ((2, 3), {"scale": float("inf")}, "scale: expected a number above 0, got inf"),
        ((2, 3), {"scale": None}, "scale: expected a number above 0, got None"),
        ((2, 3), {"margin": None}, "margin: expected a number .* got None"),
        ((2, 3), {"margin": "a"}, "margin: expected a number .* got 'a'"),
    ],
)
def test_bad_input_is_named(shape, kwargs, message: str):
    with pytest.raises(ValueError, match=message):
        additive_angular_margin(jnp.zeros(shape), jnp.array([0, 1]), **kwargs)
