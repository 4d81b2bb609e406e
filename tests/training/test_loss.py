"""The loss over all parts, against arithmetic by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import losses, training

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.quick
def test_the_loss_is_two_cross_entropies_and_a_triplet_over_locals_and_globals(rng):
    embeddings = jnp.asarray(rng.standard_normal((6, 3, 5)), jnp.float32)
    logits = jnp.asarray(rng.standard_normal((6, 3, 3)), jnp.float32)
    labels = jnp.array([0, 0, 1, 1, 2, 2])
    per_part = []
    for p in range(3):
        ce = losses.label_smoothed_cross_entropy(logits[:, p], labels)
        per_part.append(2 * ce + losses.batch_hard_triplet(embeddings[:, p], labels))
    # Two local parts and one global: mean of the locals plus the global.
    expected = (per_part[0] + per_part[1]) / 2 + per_part[2]
    value, metrics = training.partition_loss(embeddings, logits, labels, local_parts=2)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["part_loss"], jnp.stack(per_part), rtol=1e-6)
    both = 2 * metrics["cross_entropy"] + metrics["triplet"]
    np.testing.assert_allclose(both, value, rtol=1e-6)


@pytest.mark.quick
def test_weights_of_the_loss_scale_its_terms(rng):
    embeddings = jnp.asarray(rng.standard_normal((4, 1, 5)), jnp.float32)
    logits = jnp.zeros((4, 1, 2))
    labels = jnp.array([0, 0, 1, 1])
    value, _ = training.partition_loss(
        embeddings,
        logits,
        labels,
        local_parts=0,
        cross_entropy_weight=1.0,
        triplet_weight=0.0,
    )
    assert float(value) == pytest.approx(np.log(2))


def test_other_losses_join_with_their_weights(rng):
    embeddings = jnp.asarray(rng.standard_normal((4, 1, 5)), jnp.float32)
    cosines = jnp.asarray(rng.uniform(-1, 1, (4, 1, 3)), jnp.float32)
    labels = jnp.array([0, 0, 1, 1])
    value, metrics = training.partition_loss(
        embeddings,
        cosines,
        labels,
        local_parts=0,
        cross_entropy_weight=1.0,
        triplet_weight=0.0,
        circle_weight=0.5,
        circle_margin=0.4,
        circle_scale=16.0,
        angular_margin=0.2,
        angular_scale=10.0,
    )
    logits = losses.additive_angular_margin(
        cosines[:, 0], labels, margin=0.2, scale=10.0
    )
    circle = losses.circle(embeddings[:, 0], labels, margin=0.4, scale=16.0)
    expected = losses.label_smoothed_cross_entropy(logits, labels) + 0.5 * circle
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["circle"], circle, rtol=1e-6)
