"""Tracklets: grouping, means, and pulling whole tracks into a ranking."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from dex_jax._checks import check_ids, check_rows, is_concrete, unit_rows
from dex_jax.rerank._embeddings import Ranking, read_scores

# Bits of the smallest normal float32: smaller ones may be flushed to zero.
_TINY = 0x00800000


class Tracklets(NamedTuple):
    """Images grouped by tracklet; tracklets stand in order of first appearance.

    Attributes:
        labels: `[G]` int32, the tracklet of each image.
        order: `[G]` int32, images sorted by tracklet, then by gallery index.
        starts: `[T]` int32, where a tracklet begins in `order`.
        counts: `[T]` int32, its number of images; 0 beyond the last tracklet.
    """

    labels: jax.Array
    order: jax.Array
    starts: jax.Array
    counts: jax.Array


def group_tracklets(tracklet_ids: jax.Array) -> Tracklets:
    """Groups checked ids `[G]`; under tracing there may be as many tracks as images."""
    size = tracklet_ids.shape[0]
    if is_concrete(tracklet_ids):
        # Rounded up, so that another number of tracks seldom means another program.
        distinct = np.unique(np.asarray(tracklet_ids)).size
        size = min(size, -(-distinct // 64) * 64)
    return _group(tracklet_ids, size=size)


@functools.partial(jax.jit, static_argnames=("size",))
def _group(tracklet_ids: jax.Array, *, size: int) -> Tracklets:
    G = tracklet_ids.shape[0]
    index = jnp.arange(G, dtype=jnp.int32)
    ids, image = lax.sort((tracklet_ids, index), num_keys=2)
    opens = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
    first = jnp.zeros(G, jnp.int32).at[image].set(opens.astype(jnp.int32))
    appearance = (jnp.cumsum(first) - 1).astype(jnp.int32)  # [G] by gallery index
    # Each group carries the number of its first image's appearance.
    leader = lax.cummax(jnp.where(opens, index, 0))
    label = appearance[image[leader]]  # [G] of each sorted place
    counts = jnp.zeros(size, jnp.int32).at[label].add(1)
    starts = jnp.cumsum(counts) - counts
    place = starts[label] + index - leader
    return Tracklets(
        labels=jnp.zeros(G, jnp.int32).at[image].set(label),
        order=jnp.zeros(G, jnp.int32).at[place].set(image),
        starts=starts,
        counts=counts,
    )


def tracklet_means_of(
    gallery: jax.Array, tracklets: Tracklets, weights: jax.Array | None = None
) -> jax.Array:
    """Mean embedding of each tracklet `[T, D]`; zero beyond the last tracklet."""
    T = tracklets.counts.shape[0]
    rows = gallery if weights is None else gallery * weights[:, None]
    total = jax.ops.segment_sum(rows, tracklets.labels, T)
    share = (
        tracklets.counts.astype(rows.dtype)
        if weights is None
        else jax.ops.segment_sum(weights, tracklets.labels, T)
    )
    return total / jnp.where(share == 0, 1, share)[:, None]


def tracklet_means(
    gallery: ArrayLike, tracklet_ids: ArrayLike, *, weights: ArrayLike | None = None
) -> jax.Array:
    """Replaces each image's embedding by the mean of its tracklet.

    Args:
        gallery: `[G, D]`, finite, any row length but zero; rows count as unit vectors.
        tracklet_ids: `[G]` integers, equal for images of one track.
        weights: `[G]`, at least 0, the share of each image in its mean (say, its
            sharpness or size); all equal if None.

    Returns:
        `[G, D]` unit rows, equal within a tracklet.

    Raises:
        ValueError: rows that cannot be ranked; ids or weights of another length;
            negative weights, or a tracklet whose weights are all zero.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> tracklet_means(gallery, jnp.array([4, 4, 9])).round(3)
        Array([[ 0.707,  0.707],
               [ 0.707,  0.707],
               [-1.   ,  0.   ]], dtype=float32)
    """
    rows = unit_rows(check_rows(gallery, "gallery"))
    ids = check_ids(tracklet_ids, "tracklet_ids", size=rows.shape[0])
    tracklets = group_tracklets(ids)
    return averaged(rows, tracklets, check_weights(weights, tracklets))


@jax.jit
def averaged(
    gallery: jax.Array, tracklets: Tracklets, weights: jax.Array | None
) -> jax.Array:
    """`tracklet_means` of unit rows and grouped tracklets."""
    means = tracklet_means_of(gallery, tracklets, weights)
    return unit_rows(means)[tracklets.labels]


def check_weights(weights: ArrayLike | None, tracklets: Tracklets) -> jax.Array | None:
    """Reads the shares of images in their means.

    Raises:
        ValueError: another shape, a value that is negative or not finite, a tracklet
            whose weights are all zero (values are checked only when concrete).
    """
    if weights is None:
        return None
    shares = jnp.asarray(weights, jnp.float32)
    if shares.shape != tracklets.labels.shape:
        raise ValueError(
            f"weights: expected shape {tracklets.labels.shape}, got {shares.shape}"
        )
    if not is_concrete(shares, tracklets.labels):
        return shares
    values, labels = np.asarray(shares), np.asarray(tracklets.labels)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise ValueError(
            f"weights: expected finite values of at least 0, got {values[bad[0]]} "
            f"at {bad[0]}"
        )
    empty = np.flatnonzero(np.bincount(labels, values)[labels] == 0)
    if empty.size:
        raise ValueError(
            f"weights: all zero in the tracklet of image {empty[0]}, expected one "
            "above 0"
        )
    return shares


def tracklet_pull_in(scores: ArrayLike, tracklet_ids: ArrayLike) -> jax.Array:
    """Pulls whole tracklets into a ranking ("+Tracklet" of Table 6).

    Walking down the ranking, the first image of a tracklet not yet seen brings all its
    images along, in gallery order. Every image gets the best score of its tracklet;
    tracklets of equal best score are kept apart by the smallest steps of float32, so
    that sorting the result gives exactly that list.

    Args:
        scores: `[Q, G]`, larger is better, finite or -inf.
        tracklet_ids: `[G]` integers, equal for images of one track.

    Returns:
        Scores `[Q, G]`.

    Raises:
        ValueError: scores of another rank, ids of another length or type.

    Example:
        >>> import jax.numpy as jnp
        >>> scores = jnp.array([[0.1, 0.5, 0.9, 0.2]])
        >>> tracklet_pull_in(scores, jnp.array([8, 5, 8, 5]))
        Array([[0.9, 0.5, 0.9, 0.5]], dtype=float32)
    """
    scores = read_scores(scores, "scores")
    ids = check_ids(tracklet_ids, "tracklet_ids", size=scores.shape[1])
    return pull_in_scores(scores, group_tracklets(ids))


@jax.jit
def pull_in_scores(scores: jax.Array, tracklets: Tracklets) -> jax.Array:
    """`tracklet_pull_in` for grouped tracklets, one query at a time in blocks."""
    T, G = tracklets.counts.shape[0], scores.shape[1]
    index = jnp.arange(G, dtype=jnp.int32)

    def one_query(row: jax.Array) -> jax.Array:
        best = jax.ops.segment_max(row, tracklets.labels, T)  # [T]
        leads = row == best[tracklets.labels]
        leader = jax.ops.segment_min(jnp.where(leads, index, G), tracklets.labels, T)
        # Empty tracklets go last: nothing is spread from them.
        best = jnp.where(tracklets.counts > 0, best, -jnp.inf)
        down, _, ranked = lax.sort(
            (-best, leader, jnp.arange(T, dtype=jnp.int32)), num_keys=2
        )
        apart = separate(-down, jnp.arange(T, dtype=jnp.int32))
        return jnp.zeros(T).at[ranked].set(apart)[tracklets.labels]

    return lax.map(one_query, scores, batch_size=min(32, scores.shape[0]))


def separate(falling: jax.Array, place: jax.Array) -> jax.Array:
    """Makes falling scores `[..., T]` strictly falling by the smallest float steps.

    `place` counts the distinct entries from the left; entries that share a place keep
    a common value. What is masked by -inf stays so.
    """
    bits = lax.bitcast_convert_type(falling, jnp.int32)
    size = jnp.maximum((bits & 0x7FFFFFFF) - _TINY + 1, 0)
    level = jnp.where(bits < 0, -size, size)  # rises with the score, one per float
    # level'_i = min(level_i, level'_(i-1) - 1) in closed form.
    level = lax.cummin(level + place, axis=level.ndim - 1) - place
    bits = jnp.where(level == 0, 0, jnp.abs(level) + _TINY - 1)
    value = lax.bitcast_convert_type(bits, jnp.float32)
    value = jnp.where(level < 0, -value, value)
    return jnp.where(falling == -jnp.inf, falling, value)


@functools.partial(jax.jit, static_argnames=("top",))
def pull_in_ranking(
    ranking: Ranking, tracklets: Tracklets, *, top: int | None = None
) -> Ranking:
    """Pulls tracklets into a ranking of the first K images; keeps K, or `top`.

    The first K raw images are enough: each of them belongs to its own tracklet, so the
    tracklets seen among them hold at least K images between them, and no tracklet that
    opens later can stand in front of those. What is masked by -inf pulls nothing.
    """
    K = ranking.ids.shape[1]
    index = jnp.arange(K, dtype=jnp.int32)
    places = jnp.arange(K if top is None else top, dtype=jnp.int32)

    def one_query(ids: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        tracklet = tracklets.labels[ids]  # [K]
        group, place = lax.sort((tracklet, index), num_keys=2)
        opens = jnp.concatenate([jnp.ones(1, bool), group[1:] != group[:-1]])
        leader = place[lax.cummax(jnp.where(opens, index, 0))]
        leader = jnp.zeros(K, jnp.int32).at[place].set(leader)
        masked = scores[leader] == -jnp.inf
        count = jnp.where(leader == index, tracklets.counts[tracklet], 0)
        count = jnp.where(masked, 1, count)
        end = jnp.cumsum(count)
        apart = separate(scores, jnp.cumsum((count > 0).astype(jnp.int32)) - 1)
        slot = jnp.searchsorted(end, places, side="right")
        offset = places - (end - count)[slot]
        pulled = tracklets.order[tracklets.starts[tracklet[slot]] + offset]
        return jnp.where(masked[slot], ids[slot], pulled), apart[slot]

    return Ranking(*jax.vmap(one_query)(*ranking))
