"""What losses read: matrices, labels and options of every type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.losses import (
    additive_angular_margin,
    batch_hard_triplet,
    circle,
    hardest_distances,
    label_smoothed_cross_entropy,
)


def test_no_wide_label_becomes_another_class():
    logits = jnp.zeros((2, 3))
    for labels in (np.array([0, 2**40]), [0, 2**70], np.array([2**64 - 1, 0], "u8")):
        with pytest.raises(ValueError, match=r"labels: expected values in 0 \.\. 2"):
            label_smoothed_cross_entropy(logits, labels)
        with pytest.raises(ValueError, match=r"labels: expected values in 0 \.\. 2"):
            additive_angular_margin(logits, labels)
    with jax.enable_x64(True):
        loss = jax.jit(label_smoothed_cross_entropy)
        for outside in (2**32, -1, 3):
            assert jnp.isnan(loss(logits, jnp.array([0, outside])))
        assert jnp.isfinite(loss(logits, jnp.array([0, 2])))


def test_complex_numbers_and_text_are_refused():
    for wrong, kind in (
        (np.ones((2, 3), complex), "complex"),
        ([["a"] * 3] * 2, "<U1"),
    ):
        for call, name in (
            (label_smoothed_cross_entropy, "logits"),
            (additive_angular_margin, "cosines"),
            (circle, "embeddings"),
            (batch_hard_triplet, "embeddings"),
            (hardest_distances, "embeddings"),
        ):
            with pytest.raises(ValueError, match=f"{name}: expected real .*{kind}"):
                call(wrong, np.array([0, 1]))


def test_64_bit_mode_changes_nothing(rng):
    rows, labels = rng.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def every():
        return [
            label_smoothed_cross_entropy(rows, labels, epsilon=np.float64(0.1)),
            additive_angular_margin(rows, labels, margin=np.float64(0.3)),
            circle(rows, labels, margin=np.float64(0.25), scale=np.float64(8)),
            batch_hard_triplet(rows, labels, margin=np.float64(0.3), normalize=True),
            *hardest_distances(rows, labels),
        ]

    plain = every()
    with jax.enable_x64(True):
        wide = every()
    for one, other in zip(plain, wide, strict=True):
        assert one.dtype == other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-6)
