"""k-reciprocal re-ranking of queries against tracklets, expanded to images."""

import jax
import numpy as np
from jax.typing import ArrayLike

from dex_jax._checks import check_ids, is_concrete, unit_rows
from dex_jax.rerank._embeddings import Ranking, unit_pair
from dex_jax.rerank._k_reciprocal import (
    Options,
    read_options,
    reciprocal_ranking,
    reciprocal_scores,
)
from dex_jax.rerank._tracklets import (
    Tracklets,
    group_tracklets,
    pull_in_ranking,
    pull_in_scores,
    tracklet_means_of,
)


def tracklet_k_reciprocal(
    query: ArrayLike,
    gallery: ArrayLike,
    tracklet_ids: ArrayLike,
    *,
    k1: int | jax.Array = 7,
    k2: int | jax.Array = 2,
    lambda_: float | jax.Array = 0.6,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> jax.Array:
    """Re-ranks whole tracklets by their mean embeddings, then puts their images back.

    k-reciprocal re-ranking of the queries against the mean of each tracklet, as winners
    of the challenge did. Every image gets the score of its tracklet; tracklets of equal
    score are kept apart by the smallest steps of float32.

    Args:
        query: `[Q, D]`, finite, any row length but zero.
        gallery: `[G, D]`, the same.
        tracklet_ids: `[G]` integers, equal for images of one track. Inside `jit` they
            must be known, since their number sets a shape.
        k1: as in `k_reciprocal`.
        k2: as in `k_reciprocal`.
        lambda_: as in `k_reciprocal`.
        k1_max: as in `k_reciprocal`.
        k2_max: as in `k_reciprocal`.

    Returns:
        Scores `[Q, G]`.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, tracklet ids of
            another length or type or traced, options out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [0.1, 1.0], [1.0, 0.2], [0.2, 1.0]])
        >>> scores = tracklet_k_reciprocal(
        ...     jnp.array([[1.0, 0.0]]), gallery, jnp.array([5, 6, 5, 6]), k1=1, k2=1
        ... )
        >>> (scores[0, 0] > scores[0, 1]).item(), (scores[0, 0] == scores[0, 2]).item()
        (True, True)
    """
    query, gallery = unit_pair(query, gallery)
    ids = check_ids(tracklet_ids, "tracklet_ids", size=gallery.shape[0])
    tracklets = group_tracklets(ids)
    options = read_options(k1, k2, lambda_, k1_max, k2_max)
    return tracklet_reciprocal_scores(query, gallery, tracklets, options)


def tracklet_reciprocal_scores(
    query: jax.Array, gallery: jax.Array, tracklets: Tracklets, options: Options
) -> jax.Array:
    """`tracklet_k_reciprocal` of unit rows and grouped tracklets."""
    means = _means(gallery, tracklets)
    scores = reciprocal_scores(query, means, options)  # [Q, T]
    return pull_in_scores(scores[:, tracklets.labels], tracklets)


def tracklet_reciprocal_ranking(
    query: jax.Array,
    gallery: jax.Array,
    tracklets: Tracklets,
    options: Options,
    *,
    top: int,
) -> Ranking:
    """The best `top` images of `tracklet_reciprocal_scores`."""
    means = _means(gallery, tracklets)
    best = reciprocal_ranking(query, means, options, top=min(top, means.shape[0]))
    leaders = tracklets.order[tracklets.starts[best.ids]]
    return pull_in_ranking(Ranking(leaders, best.scores), tracklets, top=top)


def _means(gallery: jax.Array, tracklets: Tracklets) -> jax.Array:
    """Unit means `[T, D]` of the tracklets that there are, and no empty ones."""
    if not is_concrete(tracklets.counts):
        raise ValueError(
            "tracklet_ids: tracklet_k_reciprocal needs known values, got traced ones; "
            "their number sets a shape"
        )
    T = int(np.count_nonzero(np.asarray(tracklets.counts)))
    return unit_rows(tracklet_means_of(gallery, tracklets)[:T])
