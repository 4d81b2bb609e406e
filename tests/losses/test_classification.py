import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.losses import label_smoothed_cross_entropy

CASES = ("c10", "c10_eps0", "c2_extreme", "c333", "c526")


@pytest.mark.quick
def test_arithmetic_by_hand():
    # Two classes with odds 3 : 1, so the probabilities are 3/4 and 1/4.
    logits = jnp.log(jnp.array([[3.0, 1.0]]))
    smoothed = label_smoothed_cross_entropy(logits, jnp.array([0]), epsilon=0.1)
    expected = -(0.95 * np.log(3 / 4) + 0.05 * np.log(1 / 4))
    np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_golden_value_and_gradient(golden, case: str):
    z = np.load(golden / "losses" / f"ce_label_smoothing_{case}.npz")

    def loss(logits: jax.Array) -> jax.Array:
        return label_smoothed_cross_entropy(
            logits, jnp.asarray(z["labels"]), epsilon=float(z["eps"])
        )

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(z["logits"], jnp.float32))
    np.testing.assert_allclose(value, z["mean_uniform"], atol=2e-5, rtol=1e-6)
    np.testing.assert_allclose(gradient, z["grad_of_mean_uniform"], atol=2e-7)


def test_golden_in_float64(golden):
    z = np.load(golden / "losses" / "ce_label_smoothing_c333.npz")
    with jax.enable_x64(True):
        value = label_smoothed_cross_entropy(
            jnp.asarray(z["logits"]), jnp.asarray(z["labels"]), epsilon=float(z["eps"])
        )
    np.testing.assert_allclose(value, z["mean_uniform"], rtol=1e-13)


def test_bfloat16_logits_are_summed_in_float32(rng):
    logits = jnp.asarray(rng.normal(size=(4, 333)), jnp.bfloat16)
    labels = jnp.arange(4)
    loss = label_smoothed_cross_entropy(logits, labels)
    assert loss.dtype == jnp.float32
    widened = label_smoothed_cross_entropy(logits.astype(jnp.float32), labels)
    assert loss == widened


def test_one_lifted_call_over_parts_equals_the_loop(rng):
    logits = jnp.asarray(rng.normal(size=(6, 3, 5)), jnp.float32)  # [B, P, C]
    labels = jnp.array([0, 1, 2, 3, 4, 0])
    lifted = jax.vmap(label_smoothed_cross_entropy, in_axes=(1, None))(logits, labels)
    looped = [label_smoothed_cross_entropy(logits[:, p], labels) for p in range(3)]
    np.testing.assert_allclose(lifted, looped, rtol=1e-6)


def test_epsilon_is_traced(rng):
    logits = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)

    def loss(epsilon: jax.Array) -> jax.Array:
        return label_smoothed_cross_entropy(logits, jnp.arange(4), epsilon=epsilon)

    swept = jax.vmap(loss)(jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(swept, [loss(jnp.array(0.0)), loss(jnp.array(0.1))])


@pytest.mark.parametrize(
    ("shape", "labels", "epsilon", "message"),
    [
        ((2, 3, 4), [0, 1], 0.1, r"logits: expected \[B, C\], got shape \(2, 3, 4\)"),
        ((2, 3), [0, 1, 2], 0.1, r"labels: expected shape \(2,\)"),
        ((2, 3), [0, 3], 0.1, r"labels: expected values in 0 \.\. 2 .* got 0 \.\. 3"),
        ((2, 3), [-1, 1], 0.1, r"labels: .* got -1 \.\. 1"),
        ((2, 3), [0, 1], 1.5, "epsilon: .* of at least 0 and at most 1, got 1.5"),
        ((2, 3), [0, 1], float("nan"), "epsilon: .* got nan"),
        ((2, 3), [0, 1], None, "epsilon: .* got None"),
        ((2, 3), [0, 1], "a", "epsilon: .* got 'a'"),
        ((2, 3), [0.0, 1.0], 0.1, "labels: expected integers, got dtype float32"),
    ],
)
def test_bad_input_is_named(shape, labels, epsilon, message: str):
    with pytest.raises(ValueError, match=message):
        label_smoothed_cross_entropy(
            jnp.zeros(shape), jnp.array(labels), epsilon=epsilon
        )
