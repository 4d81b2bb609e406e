"""Joining what several models, scales or side networks say (eq. 4 and more)."""

from collections.abc import Callable, Sequence

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
    check_same_width,
    is_concrete,
    unit_rows,
)
from dex_jax.neighbors._blocks import divide, repeat
from dex_jax.neighbors._duplicates import find_duplicates, fingerprints
from dex_jax.neighbors._form import by_form, is_wide
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._padding import first_rows
from dex_jax.neighbors._products import cosines
from dex_jax.neighbors._rows import WIDE_COSINES
from dex_jax.neighbors._units import given
from dex_jax.rerank._embeddings import Pair, read_pair, read_scores
from dex_jax.rerank._scan import Carry, Scan, Tile, all_scores

METHODS = ("sum", "concat")
# Cosines held at a time.
_CPU_COSINES = 2**24


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
    pair = read_pair(query, gallery)
    return first_rows(all_scores(cosine_scan(pair)), pair.number)


def cosine_scan(pair: Pair) -> Scan:
    """The cosines of unit rows; equal images have equal ones."""
    return Scan(
        own=pair.gallery,
        whole=pair.query,
        tiles=_cosine_tiles,
        sizes=(pair.query.shape[0], pair.gallery.shape[0]),
        split="gallery",
        shards=row_shards(pair.gallery),
    )


def _cosine_tiles(
    gallery: jax.Array,
    query: jax.Array,
    take: Callable[[Carry, Tile], Carry],
    carry: Carry,
) -> Carry:
    """Tiles of cosines: some queries, all images each."""
    equal = find_duplicates(fingerprints(gallery))

    def alike(scores: jax.Array) -> jax.Array:
        return given(jnp.take(scores, equal.first, axis=1), scores)

    blocks = divide(query.shape[0], max(8, _cosines_held() // gallery.shape[0]))

    def block(i: jax.Array, carry: Carry) -> Carry:
        scores = cosines(blocks.take(query, i), gallery)
        if is_wide():
            scores = alike(scores)
        else:
            scores = lax.cond(equal.some, alike, lambda scores: scores, scores)
        return take(carry, Tile(scores, blocks.start(i), jnp.int32(0)))

    return repeat(blocks.number, block, carry)


def _cosines_held() -> int:
    return by_form(cpu=_CPU_COSINES, wide=WIDE_COSINES)


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
    query, gallery = read_sides(query_side, gallery_side)
    _check_fit(scores, pair_sizes(query, gallery), "side embeddings")
    return bias_tile(query, (gallery, weight), _whole_tile(scores))


def read_sides(
    query_side: ArrayLike, gallery_side: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Reads the embeddings of a side network, as unit rows."""
    query = check_rows(query_side, "query_side")
    gallery = check_rows(gallery_side, "gallery_side")
    check_same_width(query, gallery, "query_side", "gallery_side")
    return unit_rows(query), unit_rows(gallery)


def bias_tile(
    query_side: jax.Array, rest: tuple[jax.Array, float | jax.Array], tile: Tile
) -> jax.Array:
    """`side_distance_bias` of unit rows on a tile; `rest` is gallery and weight."""
    gallery_side, weight = rest
    return tile.scores - weight * cosines(*_of_tile(query_side, gallery_side, tile))


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
    query, gallery = read_penalty(query_cameras, gallery_cameras, penalty)
    _check_fit(scores, pair_sizes(query, gallery), "cameras")
    return penalty_tile(query, (gallery, penalty), _whole_tile(scores))


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
    query_cameras: jax.Array, rest: tuple[jax.Array, float | jax.Array], tile: Tile
) -> jax.Array:
    """`same_camera_penalty` on a tile; `rest` is the gallery's cameras and penalty."""
    gallery_cameras, penalty = rest
    own, other = _of_tile(query_cameras, gallery_cameras, tile)
    lowered = tile.scores - penalty
    return jnp.where(own[:, None] == other[None], lowered, tile.scores)


def sum_tile(other: jax.Array, weight: float | jax.Array, tile: Tile) -> jax.Array:
    """Adds a part of other scores `[Q, G]` to a tile."""
    place = (tile.row, tile.column)
    return tile.scores + weight * lax.dynamic_slice(other, place, tile.scores.shape)


def pair_sizes(query: ArrayLike, gallery: ArrayLike) -> tuple[int, int]:
    """`(Q, G)`: how many queries and gallery images two arrays are about."""
    return np.shape(query)[0], np.shape(gallery)[0]


def _check_fit(scores: jax.Array, sizes: tuple[int, int], what: str) -> None:
    """Refuses scores of another shape than the `sizes` `(Q, G)` of `what`."""
    if scores.shape != sizes:
        raise ValueError(
            f"scores: expected shape {sizes} for these {what}, got {scores.shape}"
        )


def _whole_tile(scores: jax.Array) -> Tile:
    return Tile(scores, jnp.int32(0), jnp.int32(0))


def _of_tile(
    query: jax.Array, gallery: jax.Array, tile: Tile
) -> tuple[jax.Array, jax.Array]:
    """The parts of `query` `[Q, ...]` and `gallery` `[G, ...]` that a tile compares."""
    rows, columns = tile.scores.shape
    return (
        lax.dynamic_slice_in_dim(query, tile.row, rows),
        lax.dynamic_slice_in_dim(gallery, tile.column, columns),
    )
