import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.losses import batch_hard_triplet, hardest_distances

CASES = (
    "all_easy_d10",
    "duplicates_d12",
    "pk8x4_d16",
    "pk8x4_shuffled_d256_clustered",
    "unequal_with_singleton_d8",
)


@pytest.mark.quick
def test_arithmetic_by_hand():
    # On a line: positions 0, 1 of identity 0 and 3, 7 of identity 1.
    x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
    labels = jnp.array([0, 0, 1, 1])
    # (hardest positive - hardest negative + 1): 1-3+1, 1-2+1, 4-2+1, 4-6+1
    terms = np.maximum([-1.0, 0.0, 3.0, -1.0], 0)
    mean = batch_hard_triplet(x, labels, margin=1.0)
    np.testing.assert_allclose(mean, terms.mean())
    total = batch_hard_triplet(x, labels, margin=1.0, reduction="sum")
    np.testing.assert_allclose(total, terms.sum())
    soft = np.log1p(np.exp([-2.0, -1.0, 2.0, -2.0])).mean()
    np.testing.assert_allclose(
        batch_hard_triplet(x, labels, margin=None), soft, rtol=1e-6
    )


@pytest.mark.quick
def test_the_farthest_positive_and_the_nearest_negative_by_hand():
    # On a line: 0, 1, 5 of identity 0 and 6, 8, 20 of identity 1, as they come.
    x = jnp.array([[0.0], [6.0], [1.0], [20.0], [5.0], [8.0]])
    labels = jnp.array([0, 1, 0, 1, 0, 1])
    farthest = [5.0, 14.0, 4.0, 14.0, 5.0, 12.0]
    nearest = [6.0, 1.0, 5.0, 15.0, 1.0, 3.0]
    positive, negative = hardest_distances(x, labels)
    np.testing.assert_allclose(positive, farthest)
    np.testing.assert_allclose(negative, nearest)
    terms = np.maximum(np.subtract(farthest, nearest) + 1.2, 0)
    np.testing.assert_allclose(batch_hard_triplet(x, labels), terms.mean(), rtol=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("margin", [0.3, None])
def test_normalize_scales_rows_to_length_one(rng, margin):
    x = rng.normal(size=(6, 5)).astype(np.float32)
    labels = jnp.array([0, 0, 1, 1, 2, 2])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(
        batch_hard_triplet(x, labels, margin=margin, normalize=True),
        batch_hard_triplet(unit, labels, margin=margin),
        rtol=1e-5,
    )


def _sum_over_duplicates(gradient: np.ndarray, x: np.ndarray) -> np.ndarray:
    groups = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
    return np.stack([gradient[groups == g].sum(0) for g in np.unique(groups)])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_golden_value_and_gradient(golden, case: str, normalize: bool):
    suffix = "_l2norm" if normalize else ""
    z = np.load(golden / "losses" / f"triplet_{case}{suffix}.npz")
    labels = jnp.asarray(z["labels"])
    margin = float(z["margin"])

    def losses(x: jax.Array) -> jax.Array:
        options = [(margin, "mean"), (margin, "sum"), (None, "mean"), (None, "sum")]
        return jnp.stack(
            [
                batch_hard_triplet(
                    x, labels, margin=m, normalize=normalize, reduction=reduction
                )
                for m, reduction in options
            ]
        )

    kinds = ("hinge_mean", "hinge_sum", "soft_mean", "soft_sum")
    expected = [z[f"loss_{kind}"] for kind in kinds]
    with jax.enable_x64(True):
        values = jax.jit(losses)(jnp.asarray(z["x"]))
        gradients = jax.jit(jax.jacrev(losses))(jnp.asarray(z["x"]))
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)
    for kind, gradient in zip(kinds, gradients, strict=True):
        np.testing.assert_allclose(
            _sum_over_duplicates(np.asarray(gradient), z["x"]),
            _sum_over_duplicates(z[f"grad_{kind}"], z["x"]),
            atol=1e-11,
        )
    small = jax.jit(losses)(jnp.asarray(z["x"], jnp.float32))
    np.testing.assert_allclose(small, expected, rtol=1e-5, atol=2e-5)


def test_close_pairs_far_from_the_origin_keep_their_distance():
    # The Gram form in float32 would lose a distance of 0.001 beside a norm of 1600.
    x = np.full((4, 256), 100.0, np.float32)
    x[1, 0] += 0.001
    x[2:] += 1.0
    labels = jnp.array([0, 0, 1, 1])
    loss = batch_hard_triplet(jnp.asarray(x), labels, margin=16.0, reduction="sum")
    near = x[1, 0] - x[0, 0]
    apart = [16.0, np.sqrt((x[2, 0] - x[1, 0]) ** 2 + 255.0)]
    expected = sum(16 + near - a for a in apart) + 2 * (16 - apart[1])
    np.testing.assert_allclose(loss, expected, rtol=1e-3)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("margin", [0.3, None])
@pytest.mark.quick
def test_gradient_is_finite_where_all_embeddings_coincide(normalize: bool, margin):
    for x in (jnp.ones((4, 3)), jnp.zeros((4, 3))):
        gradient = jax.grad(batch_hard_triplet)(
            x, jnp.array([0, 0, 1, 1]), margin=margin, normalize=normalize
        )
        assert jnp.all(jnp.isfinite(gradient))


def test_one_lifted_call_over_parts_equals_the_loop(rng):
    x = jnp.asarray(rng.normal(size=(8, 17, 4)), jnp.float32)  # [B, P, D]
    labels = jnp.repeat(jnp.array([3, 9]), 4)
    lifted = jax.jit(jax.vmap(batch_hard_triplet, in_axes=(1, None)))(x, labels)
    looped = [batch_hard_triplet(x[:, p], labels) for p in range(17)]
    np.testing.assert_allclose(lifted, looped, rtol=1e-5)


def test_margin_is_traced_and_order_of_the_batch_does_not_matter(rng):
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    labels = jnp.array([0, 0, 1, 1, 2, 2])
    order = rng.permutation(6)
    swept = jax.vmap(lambda m: batch_hard_triplet(x, labels, margin=m))(
        jnp.array([0.0, 1.2])
    )
    shuffled = [
        batch_hard_triplet(x[order], labels[order], margin=m) for m in (0.0, 1.2)
    ]
    np.testing.assert_allclose(swept, shuffled, rtol=1e-5)


def test_bfloat16_embeddings_are_measured_in_float32(rng):
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.bfloat16)
    labels = jnp.array([0, 0, 1, 1, 2, 2])
    loss = batch_hard_triplet(x, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(
        loss, batch_hard_triplet(x.astype(jnp.float32), labels), rtol=1e-6
    )


def test_an_anchor_without_a_negative_contributes_nothing(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    loss, gradient = jax.value_and_grad(batch_hard_triplet)(x, jnp.zeros(4, int))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((4,), {}, r"embeddings: expected \[B, D\], got shape \(4,\)"),
        ((3, 2), {}, r"labels: expected shape \(3,\), got \(4,\)"),
        ((4, 2), {"margin": -0.1}, "margin: expected a number of at least 0, got -0.1"),
        ((4, 2), {"margin": float("nan")}, "margin: .* got nan"),
        ((4, 2), {"margin": float("inf")}, "margin: .* got inf"),
        ((4, 2), {"margin": "a"}, "margin: .* got 'a'"),
        ((4, 2), {"margin": 1j}, "margin: .* got 1j"),
        ((4, 2), {"reduction": "max"}, "reduction: expected one of 'mean', 'sum'"),
    ],
)
def test_bad_input_is_named(shape, kwargs, message: str):
    with pytest.raises(ValueError, match=message):
        batch_hard_triplet(jnp.zeros(shape), jnp.array([0, 0, 1, 1]), **kwargs)
