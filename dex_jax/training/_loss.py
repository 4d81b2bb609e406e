"""The loss over all parts of a partition network."""

from typing import TypeAlias

import jax
import jax.numpy as jnp

from dex_jax import losses

Metrics: TypeAlias = dict[str, jax.Array]


def partition_loss(
    embeddings: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    *,
    local_parts: int,
    epsilon: float = 0.1,
    margin: float | None = 1.2,
    cross_entropy_weight: float = 2.0,
    triplet_weight: float = 1.0,
    circle_weight: float = 0.0,
    circle_margin: float = 0.25,
    circle_scale: float = 128.0,
    angular_margin: float | None = None,
    angular_scale: float = 30.0,
) -> tuple[jax.Array, Metrics]:
    """The paper's loss over all parts: 2 * cross-entropy + 1 * triplet (section 3.1).

    All terms act on every part; each is the mean over the local parts plus the mean
    over the global ones. The circle loss and the angular margin are not the paper's.

    Args:
        embeddings: `[B, P, D]` before batch norm, locals first.
        logits: `[B, P, C]`; cosines where there is an angular margin.
        labels: `[B]` int32 in [0, C).
        local_parts: how many of the P parts are local.
        epsilon: label smoothing (eq. 2).
        margin: of the triplet loss (eq. 3); None is the soft margin.
        cross_entropy_weight: weight of eq. 1.
        triplet_weight: weight of eq. 3.
        circle_weight: weight of the circle loss; 0 leaves it out.
        circle_margin: its margin.
        circle_scale: its scale.
        angular_margin: of ArcFace's softmax; None is the plain softmax.
        angular_scale: what ArcFace multiplies cosines by.

    Returns:
        The loss and its pieces: `cross_entropy`, `triplet` (scalars; `circle`, where
        it has a weight) and `part_loss` `[P]`.

    Example:
        >>> e, l = jnp.ones((2, 1, 3)), jnp.zeros((2, 1, 4))
        >>> value, _ = partition_loss(e, l, jnp.array([0, 1]), local_parts=0)
        >>> round(float(value), 2) == round(2 * float(jnp.log(4)) + 1.2, 2)
        True
    """

    def part_terms(embedding: jax.Array, logit: jax.Array) -> Metrics:
        if angular_margin is not None:
            logit = losses.additive_angular_margin(
                logit, labels, margin=angular_margin, scale=angular_scale
            )
        terms = {
            "cross_entropy": losses.label_smoothed_cross_entropy(
                logit, labels, epsilon=epsilon
            ),
            "triplet": losses.batch_hard_triplet(embedding, labels, margin=margin),
        }
        if circle_weight:
            terms["circle"] = losses.circle(
                embedding, labels, margin=circle_margin, scale=circle_scale
            )
        return terms

    def both_means(term: jax.Array) -> jax.Array:
        groups = [term[:local_parts], term[local_parts:]]
        return jnp.stack([jnp.mean(g) for g in groups if g.size]).sum()

    terms = jax.vmap(part_terms, in_axes=1)(embeddings, logits)  # each [P]
    weights = {
        "cross_entropy": cross_entropy_weight,
        "triplet": triplet_weight,
        "circle": circle_weight,
    }
    per_part = sum(
        (weights[name] * term for name, term in terms.items()),
        jnp.zeros((), jnp.float32),
    )
    metrics = {name: both_means(term) for name, term in terms.items()}
    return both_means(per_part), metrics | {"part_loss": per_part}
