"""Joining what several models, scales or side networks say (eq. 4 and more)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from dex_jax._checks import (
    check_choice,
    check_number,
    check_paired_ids,
    check_rows,
    is_concrete,
    unit_rows,
)
from dex_jax.rerank._blocks import even_block, map_blocks
from dex_jax.rerank._embeddings import Ranking, best, read_scores, unit_pair
from dex_jax.rerank._kinds import Tile, adjusted, unmarked

METHODS = ("sum", "concat")
# Scores held at a time where only the best are kept.
_TILE = 2**24


def cosine_similarity(query: ArrayLike, gallery: ArrayLike) -> jax.Array:
    """Cosine similarity of every query to every gallery image.

    Args:
        query: `[Q, D]`, finite, any row length but zero.
        gallery: `[G, D]`, the same.

    Returns:
        Scores `[Q, G]`, in full float32.

    Raises:
        ValueError: rows that cannot be ranked, or different dimensions.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[2.0, 0.0], [0.0, 1.0]])
        >>> cosine_similarity(jnp.array([[0.6, 0.8]]), gallery).round(3)
        Array([[0.6, 0.8]], dtype=float32)
    """
    return cosines(*unit_pair(query, gallery))


@functools.partial(jax.jit, static_argnames=("top",))
def cosine_ranking(
    query: jax.Array, gallery: jax.Array, tiles: tuple[Tile, ...], *, top: int
) -> Ranking:
    """The best `top` cosines of unit rows after the refine steps `tiles`."""
    Q, G = query.shape[0], gallery.shape[0]
    size = even_block(Q, max(8, _TILE // G))

    def block(start: jax.Array) -> Ranking:
        own = lax.dynamic_slice_in_dim(query, start, size)
        return best(adjusted(cosines(own, gallery), tiles, start, jnp.int32(0)), top)

    return unmarked(map_blocks(block, rows=Q, block=size))


@jax.jit
def cosines(query: jax.Array, gallery: jax.Array) -> jax.Array:
    """`cosine_similarity` of unit rows."""
    return jnp.matmul(query, gallery.T, precision="highest")


def fuse(embeddings: Sequence[ArrayLike], *, method: str = "sum") -> jax.Array:
    """Joins embeddings of the same images from several models and scales (eq. 4).

    Every embedding is scaled to unit length, then averaged ("sum", the paper's) or set
    side by side ("concat"), and scaled again. The cosine of concatenated embeddings
    is the mean of their cosines.

    Args:
        embeddings: sequence of `[N, D]`; for "concat" the dimensions may differ.
        method: "sum" or "concat".

    Returns:
        `[N, D]`, or `[N, sum of D]`; unit rows.

    Raises:
        ValueError: no embeddings, rows that cannot be ranked, different sizes, or
            images whose embeddings cancel to zero.

    Example:
        >>> import jax.numpy as jnp
        >>> fuse([jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 5.0]])]).round(3)
        Array([[0.707, 0.707]], dtype=float32)
    """
    check_choice(method, "method", METHODS)
    if not embeddings:
        raise ValueError("embeddings: expected at least one array, got none")
    rows = [check_rows(e, f"embeddings[{i}]") for i, e in enumerate(embeddings)]
    for i, other in enumerate(rows):
        same = other.shape == rows[0].shape
        if not (same or (method == "concat" and len(other) == len(rows[0]))):
            raise ValueError(
                f"embeddings[{i}]: shape {other.shape} does not fit embeddings[0], "
                f"{rows[0].shape}, with method={method!r}"
            )
    units = [unit_rows(row) for row in rows]
    if method == "concat":
        return unit_rows(jnp.concatenate(units, axis=1))
    return unit_rows(check_rows(sum(units[1:], units[0]), "embeddings: their sum"))


def fuse_scores(
    scores: Sequence[ArrayLike], *, weights: Sequence[float] | None = None
) -> jax.Array:
    """Sums the scores of several rankings of the same queries and gallery.

    Args:
        scores: sequence of `[Q, G]`, larger is better.
        weights: one number for each; all 1 if None. May be traced.

    Returns:
        Scores `[Q, G]`.

    Raises:
        ValueError: no scores, different shapes, another number of weights.

    Example:
        >>> import jax.numpy as jnp
        >>> fuse_scores([jnp.array([[0.5]]), jnp.array([[0.25]])], weights=[1.0, 2.0])
        Array([[1.]], dtype=float32)
    """
    if not len(scores):
        raise ValueError("scores: expected at least one array, got none")
    arrays = [read_scores(s, f"scores[{i}]") for i, s in enumerate(scores)]
    for i, other in enumerate(arrays):
        if other.shape != arrays[0].shape:
            raise ValueError(
                f"scores[{i}]: shape {other.shape} differs from scores[0], "
                f"{arrays[0].shape}"
            )
    share = jnp.ones(len(arrays)) if weights is None else jnp.asarray(weights)
    if share.shape != (len(arrays),):
        raise ValueError(
            f"weights: expected {len(arrays)} numbers, one for each of scores, got "
            f"shape {share.shape}"
        )
    parts = [share[i] * array for i, array in enumerate(arrays)]
    return sum(parts[1:], parts[0])


def side_distance_bias(
    scores: ArrayLike,
    query_side: ArrayLike,
    gallery_side: ArrayLike,
    *,
    weight: float | jax.Array,
) -> jax.Array:
    """Takes from the scores what two images share for another reason than identity.

    Embeddings of a side network (camera, orientation) are near where the circumstances
    are the same: `score - weight * cos(side)`. In distances that is `d - w d_side` up
    to a constant. Apply it once for each side network.

    Args:
        scores: `[Q, G]`, larger is better.
        query_side: `[Q, S]` embeddings of the side network.
        gallery_side: `[G, S]`, the same.
        weight: its share; may be traced.

    Returns:
        Scores `[Q, G]`.

    Raises:
        ValueError: shapes that do not fit, rows that cannot be ranked.

    Example:
        >>> import jax.numpy as jnp
        >>> side = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> side_distance_bias(jnp.array([[0.5, 0.5]]), side[:1], side, weight=0.1)
        Array([[0.4, 0.5]], dtype=float32)
    """
    check_number(weight, "weight")
    scores = read_scores(scores, "scores")
    sides = read_sides(query_side, gallery_side)
    _check_fit(scores, pair_sizes(*sides), "side embeddings")
    return bias_tile(*sides, weight, scores, 0, 0)


def read_sides(
    query_side: ArrayLike, gallery_side: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Reads the embeddings of a side network, as unit rows."""
    return unit_pair(query_side, gallery_side, ("query_side", "gallery_side"))


def bias_tile(
    query_side: jax.Array,
    gallery_side: jax.Array,
    weight: float | jax.Array,
    scores: jax.Array,
    row: int | jax.Array,
    column: int | jax.Array,
) -> jax.Array:
    """`side_distance_bias` of unit rows, on a tile that begins at `row`, `column`."""
    sides = _of_tile(query_side, gallery_side, scores, row, column)
    return scores - weight * cosines(*sides)


def same_camera_penalty(
    scores: ArrayLike,
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    penalty: float | jax.Array = float("inf"),
) -> jax.Array:
    """Lowers the scores of gallery images from the query's own camera.

    Args:
        scores: `[Q, G]`, larger is better.
        query_cameras: `[Q]` integers.
        gallery_cameras: `[G]` integers.
        penalty: what is taken off; infinity masks those images: they come last. May be
            traced.

    Returns:
        Scores `[Q, G]`.

    Raises:
        ValueError: shapes that do not fit, cameras that are not integers, a penalty
            that is not a number.

    Example:
        >>> import jax.numpy as jnp
        >>> cameras = (jnp.array([3]), jnp.array([3, 4]))
        >>> same_camera_penalty(jnp.array([[0.75, 0.5]]), *cameras, penalty=0.5)
        Array([[0.25, 0.5 ]], dtype=float32)
    """
    scores = read_scores(scores, "scores")
    cameras = read_penalty(query_cameras, gallery_cameras, penalty)
    _check_fit(scores, pair_sizes(*cameras), "cameras")
    return penalty_tile(*cameras, penalty, scores, 0, 0)


def read_penalty(
    query_cameras: ArrayLike, gallery_cameras: ArrayLike, penalty: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Reads the cameras of queries and gallery, and checks the penalty."""
    if is_concrete(penalty) and np.isnan(float(penalty)):
        raise ValueError(f"penalty: expected a number, got {penalty}")
    names = ("query_cameras", "gallery_cameras")
    sizes = pair_sizes(query_cameras, gallery_cameras)
    return check_paired_ids(query_cameras, gallery_cameras, names, sizes)


def penalty_tile(
    query_cameras: jax.Array,
    gallery_cameras: jax.Array,
    penalty: float | jax.Array,
    scores: jax.Array,
    row: int | jax.Array,
    column: int | jax.Array,
) -> jax.Array:
    """`same_camera_penalty` on a tile that begins at `row`, `column`."""
    own, other = _of_tile(query_cameras, gallery_cameras, scores, row, column)
    return jnp.where(own[:, None] == other[None], scores - penalty, scores)


def sum_tile(
    other: jax.Array,
    weight: float | jax.Array,
    scores: jax.Array,
    row: int | jax.Array,
    column: int | jax.Array,
) -> jax.Array:
    """Adds a part of other scores `[Q, G]` to a tile that begins at `row`, `column`."""
    part = lax.dynamic_slice(other, (row, column), scores.shape)
    return scores + weight * part


def pair_sizes(query: ArrayLike, gallery: ArrayLike) -> tuple[int, int]:
    """`(Q, G)`: how many queries and gallery images two arrays are about."""
    return np.shape(query)[0], np.shape(gallery)[0]


def _check_fit(scores: jax.Array, sizes: tuple[int, int], what: str) -> None:
    """Refuses scores of another shape than the `sizes` `(Q, G)` of `what`."""
    if scores.shape != sizes:
        raise ValueError(
            f"scores: expected shape {sizes} for these {what}, got {scores.shape}"
        )


def _of_tile(
    query: jax.Array,
    gallery: jax.Array,
    scores: jax.Array,
    row: int | jax.Array,
    column: int | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The parts of `query` `[Q, ...]` and `gallery` `[G, ...]` that a tile compares."""
    return (
        lax.dynamic_slice_in_dim(query, row, scores.shape[0]),
        lax.dynamic_slice_in_dim(gallery, column, scores.shape[1]),
    )
