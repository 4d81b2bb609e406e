"""Circle loss against loops over the printed formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dex_jax.losses import circle


def by_loops(x: np.ndarray, labels: np.ndarray, margin: float, scale: float) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    losses = []
    for anchor, own in enumerate(labels):
        near, far = 0.0, 0.0
        for other, label in enumerate(labels):
            s = float(x[anchor] @ x[other])
            if label != own:
                far += np.exp(scale * max(s + margin, 0) * (s - margin))
            elif other != anchor:
                near += np.exp(-scale * max(1 + margin - s, 0) * (s - 1 + margin))
        losses.append(np.log1p(near * far))
    return float(np.mean(losses))


def test_arithmetic_by_hand():
    # Cosines: 0.6 to the one positive, 0 or 0.8 to the one negative of the first pair.
    x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = jnp.array([0, 0, 1])
    near = -2 * (1.2 - 0.6) * (0.6 - 0.8)  # scale 2, margin 0.2
    far = [2 * 0.2 * (0 - 0.2), 2 * (0.8 + 0.2) * (0.8 - 0.2)]
    expected = sum(np.log1p(np.exp(near + f)) for f in far) / 3  # the third is alone
    np.testing.assert_allclose(
        circle(x, labels, margin=0.2, scale=2.0), expected, rtol=1e-6
    )


@pytest.mark.parametrize(("margin", "scale"), [(0.25, 128.0), (0.4, 80.0), (0.0, 1.0)])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [5, 5, 5, 2, 2, 7]])
def test_it_equals_the_loops(rng, labels: list[int], margin: float, scale: float):
    x = rng.normal(size=(6, 4))
    expected = by_loops(x, np.array(labels), margin, scale)
    arguments = jnp.asarray(x, jnp.float32), jnp.array(labels)
    value = circle(*arguments, margin=margin, scale=scale)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_gradient_holds_the_weights_of_pairs_fixed(rng):
    """Where every pair weighs the same, the gradient is that of finite differences."""
    labels = jnp.array([0, 0, 1, 1])
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(4, 3)))
        fixed = jax.grad(circle)(x, labels, scale=4.0)
        unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        cosine = unit @ unit.T
        push, pull = jax.nn.relu(cosine + 0.25), jax.nn.relu(1.25 - cosine)

        def weighted(x: jax.Array) -> jax.Array:
            unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
            s = unit @ unit.T
            far = jnp.exp(4 * push * (s - 0.25))
            near = jnp.exp(-4 * pull * (s - 0.75))
            pairs = [(0, 1, (2, 3)), (1, 0, (2, 3)), (2, 3, (0, 1)), (3, 2, (0, 1))]
            terms = [near[a, p] * (far[a, n] + far[a, m]) for a, p, (n, m) in pairs]
            return jnp.mean(jnp.log1p(jnp.stack(terms)))

        check_grads(weighted, (x,), order=1, modes=["rev"])
        np.testing.assert_allclose(fixed, jax.grad(weighted)(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_gradient_is_finite_at_equal_and_at_zero_embeddings(labels, fill: float):
    x = jnp.full((4, 3), fill)
    value, gradient = jax.jit(jax.value_and_grad(circle))(x, jnp.array(labels))
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))
    if labels != [0, 0, 1, 1]:  # no anchor has both kinds of pair
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_order_and_length_do_not_matter_and_parts_are_lifted(rng):
    x = jnp.asarray(rng.normal(size=(6, 2, 4)), jnp.float32)  # [B, P, D]
    labels = jnp.array([0, 0, 1, 1, 2, 2])
    lifted = jax.vmap(circle, in_axes=(1, None))(x, labels)
    order = rng.permutation(6)
    shuffled = [circle(3 * x[order, p], labels[order]) for p in range(2)]
    np.testing.assert_allclose(lifted, shuffled, rtol=1e-5)


def test_bfloat16_is_measured_in_float32(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.bfloat16)
    labels = jnp.array([0, 0, 1, 1])
    loss = circle(x, labels)
    assert loss.dtype == jnp.float32
    assert loss == circle(x.astype(jnp.float32), labels)


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((4,), {}, r"embeddings: expected \[B, D\], got shape \(4,\)"),
        ((3, 2), {}, r"labels: expected shape \(3,\), got \(4,\)"),
        (
            (4, 2),
            {"margin": 1.5},
            "margin: expected a number of at least 0 and at most 1, got 1.5",
        ),
        ((4, 2), {"scale": 0.0}, r"scale: expected a number above 0, got 0.0"),
        ((4, 2), {"scale": None}, "scale: expected a number above 0, got None"),
        ((4, 2), {"scale": float("nan")}, "scale: expected a number above 0, got nan"),
        ((4, 2), {"margin": None}, "margin: expected a number .* got None"),
        ((4, 2), {"margin": "a"}, "margin: expected a number .* got 'a'"),
        ((4, 2), {"margin": 1j}, "margin: expected a number .* got 1j"),
        ((4, 2), {"scale": float("nan")}, "scale: .* got nan"),
    ],
)
def test_bad_input_is_named(shape, kwargs, message: str):
    with pytest.raises(ValueError, match=message):
        circle(jnp.zeros(shape), jnp.array([0, 0, 1, 1]), **kwargs)
