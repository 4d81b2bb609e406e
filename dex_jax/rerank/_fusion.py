"""Joining what several models, scales or side networks say (eq. 4 and more)."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    check_choice,
    check_number,
    check_paired_ids,
    check_rows,
    check_same_width,
    on_any_mesh,
    read_array,
    unit_rows,
)
from dex_jax.neighbors._blocks import divide, repeat
from dex_jax.neighbors._duplicates import find_duplicates, fingerprints
from dex_jax.neighbors._form import by_form, is_wide
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._products import cosines
from dex_jax.neighbors._rows import WIDE_COSINES
from dex_jax.neighbors._split import SplitRows
from dex_jax.neighbors._units import given
from dex_jax.rerank._embeddings import Pair, all_asked, read_pair, read_scores
from dex_jax.rerank._scan import Carry, Scan, Tile, all_scores

METHODS = ("sum", "concat")
# Cosines held at a time.
_CPU_COSINES = 2**24


@on_any_mesh
def cosine_similarity(query: ArrayLike, gallery: ArrayLike | SplitRows) -> jax.Array:
    """Cosine similarity of every query to every gallery image.

    Can be differentiated in both.

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
    return all_asked(all_scores(cosine_scan(pair)), pair)


def cosine_scan(pair: Pair) -> Scan:
    """The cosines of unit rows; equal images have equal ones."""
    return Scan(
        own=pair.gallery,
        whole=pair.query,
        tiles=_cosine_tiles,
        sizes=(pair.query.shape[0], pair.gallery.shape[0]),
        images=pair.images,
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


@on_any_mesh
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
    _check_listed(embeddings, "embeddings")
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


@on_any_mesh
def fuse_scores(
    scores: Sequence[ArrayLike], *, weights: ArrayLike | None = None
) -> jax.Array:
    """Sums the scores of several rankings of the same queries and gallery.

    A weight of 0 leaves its scores out, whatever they are. Where a part (weight times
    score) is -inf, that image is masked: the sum is -inf, also beside +inf.

    Args:
        scores: sequence of `[Q, G]` real numbers, larger is better, read as float32; a
            warning says where most different ones become equal.
        weights: one finite number for each; all 1 if None. May be traced.

    Returns:
        Scores `[Q, G]` float32.

    Raises:
        ValueError: no scores, different shapes, scores that are NaN or no real numbers
            or that float32 cannot hold, another number of weights, or one that is no
            finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> fuse_scores([jnp.array([[0.5]]), jnp.array([[0.25]])], weights=[1.0, 2.0])
        Array([[1.]], dtype=float32)
    """
    _check_listed(scores, "scores")
    arrays = [read_scores(s, f"scores[{i}]") for i, s in enumerate(scores)]
    for i, other in enumerate(arrays):
        if other.shape != arrays[0].shape:
            raise ValueError(
                f"scores[{i}]: shape {other.shape} differs from scores[0], "
                f"{arrays[0].shape}"
            )
    if weights is None:
        return _sum(arrays)
    shares = _read_weights(weights, len(arrays))
    return _sum([_part(a, share) for a, share in zip(arrays, shares, strict=True)])


def _check_listed(arrays: Sequence[ArrayLike], name: str) -> None:
    """Refuses what is no sequence of at least one array."""
    try:
        number = len(arrays)
    except TypeError:
        number = 0
    if not number:
        shown = "none" if isinstance(arrays, Sequence) else type(arrays).__name__
        raise ValueError(f"{name}: expected at least one array, got {shown}")


def _read_weights(weights: ArrayLike, number: int) -> list[jax.Array]:
    """Reads one finite weight for each of some scores."""
    listed = isinstance(weights, list | tuple)
    # Numbers of a list are read one by one, as some of them may be traced.
    values = weights if listed else read_array(weights, "weights")
    shape = (len(values),) if isinstance(values, list | tuple) else values.shape
    if shape != (number,):
        raise ValueError(
            f"weights: expected {number} numbers, one for each of scores, got shape "
            f"{shape}"
        )
    shares = [check_number(values[i], f"weights[{i}]") for i in range(number)]
    return [jnp.asarray(share, jnp.float32) for share in shares]


def _part(scores: jax.Array, weight: jax.Array) -> jax.Array:
    """Weight times scores, and 0 for a weight of 0: infinities times 0 are NaN."""
    return weight * jnp.where(weight != 0, scores, 0)


def _sum(parts: Sequence[jax.Array]) -> jax.Array:
    """The sum of scores; -inf in one of them masks an image, also beside +inf."""
    masked = functools.reduce(jnp.logical_or, [part == -jnp.inf for part in parts])
    # No infinities of both signs are added, not even where the sum is thrown away.
    kept = [jnp.where(masked, 0, part) for part in parts]
    return jnp.where(masked, -jnp.inf, functools.reduce(jnp.add, kept))


@on_any_mesh
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
        scores: `[Q, G]` real numbers, larger is better, read as float32; a warning says
            where most different ones become equal.
        query_side: `[Q, S]` embeddings of the side network.
        gallery_side: `[G, S]`, the same.
        weight: its share, a finite number; may be traced.

    Returns:
        Scores `[Q, G]` float32; infinite ones stay as they are.

    Raises:
        ValueError: shapes that do not fit, rows that cannot be ranked, scores that are
            NaN or no real numbers or that float32 cannot hold, a weight that is no
            finite number.

    Example:
        >>> import jax.numpy as jnp
        >>> side = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> side_distance_bias(jnp.array([[0.5, 0.5]]), side[:1], side, weight=0.1)
        Array([[0.4, 0.5]], dtype=float32)
    """
    share = read_weight(weight)
    given = read_scores(scores, "scores")
    query, gallery = read_sides(query_side, gallery_side)
    _check_fit(given, pair_sizes(query, gallery), "side embeddings")
    return bias_tile((query, gallery), share, _whole_tile(given))


def read_weight(weight: float | jax.Array) -> jax.Array:
    """Reads the share of something that is added to scores, one finite number."""
    return jnp.asarray(check_number(weight, "weight"), jnp.float32)


def read_sides(
    query_side: ArrayLike, gallery_side: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Reads the embeddings of a side network, as unit rows."""
    query = check_rows(query_side, "query_side")
    gallery = check_rows(gallery_side, "gallery_side")
    check_same_width(query, gallery, "query_side", "gallery_side")
    return unit_rows(query), unit_rows(gallery)


def bias_tile(sides: tuple[jax.Array, ...], weight: jax.Array, tile: Tile) -> jax.Array:
    """`side_distance_bias` of unit rows, of queries and gallery, on a tile."""
    query_side, gallery_side = sides
    return tile.scores - weight * cosines(*_of_tile(query_side, gallery_side, tile))


@on_any_mesh
def same_camera_penalty(
    scores: ArrayLike,
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    penalty: float | jax.Array = float("inf"),
) -> jax.Array:
    """Lowers the scores of gallery images from the query's own camera.

    A camera of -1 is unknown and equals none, not even another unknown one.

    Args:
        scores: `[Q, G]` real numbers, larger is better, read as float32; a warning says
            where most different ones become equal.
        query_cameras: `[Q]` integers of any type, or text (bytes are read as UTF-8);
            the text "-1" and the empty one mean -1. Only equality counts.
        gallery_cameras: `[G]`, of the same kind.
        penalty: what is taken off; infinity masks those images: they come last, with
            the score -inf. May be traced.

    Returns:
        Scores `[Q, G]` float32.

    Raises:
        ValueError: shapes that do not fit, scores that are NaN or no real numbers or
            that float32 cannot hold, cameras that are neither integers nor text or text
            on one side alone, a penalty that is not one number or -inf.

    Example:
        >>> import jax.numpy as jnp
        >>> cameras = (jnp.array([3]), jnp.array([3, 4]))
        >>> same_camera_penalty(jnp.array([[0.75, 0.5]]), *cameras, penalty=0.5)
        Array([[0.25, 0.5 ]], dtype=float32)
    """
    given = read_scores(scores, "scores")
    cameras, share = read_penalty(query_cameras, gallery_cameras, penalty)
    _check_fit(given, pair_sizes(*cameras), "cameras")
    return penalty_tile(cameras, share, _whole_tile(given))


def read_penalty(
    query_cameras: ArrayLike, gallery_cameras: ArrayLike, penalty: float | jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Reads the cameras of queries and gallery, and the penalty."""
    penalty = check_number(penalty, "penalty", most=float("inf"))
    names = ("query_cameras", "gallery_cameras")
    cameras = check_paired_ids(query_cameras, gallery_cameras, names)
    return cameras, jnp.asarray(penalty, jnp.float32)


def penalty_tile(
    cameras: tuple[jax.Array, ...], penalty: jax.Array, tile: Tile
) -> jax.Array:
    """`same_camera_penalty` on a tile, of the cameras of queries and gallery."""
    query_cameras, gallery_cameras = cameras
    own, other = _of_tile(query_cameras, gallery_cameras, tile)
    same = (own[:, None] == other[None]) & (own[:, None] != -1)
    return jnp.where(same, _sum([tile.scores, -penalty]), tile.scores)


def sum_tile(others: tuple[jax.Array, ...], weight: jax.Array, tile: Tile) -> jax.Array:
    """Adds a part of other scores `[Q, G]` to a tile, as `fuse_scores` does."""
    place = (tile.row, tile.column)
    added = lax.dynamic_slice(others[0], place, tile.scores.shape)
    return _sum([tile.scores, _part(added, weight)])


def zero_tile(alive: tuple[jax.Array, ...], _: None, tile: Tile) -> jax.Array:
    """0 where a query or an image is a row of zeros, which has no direction."""
    query_alive, image_alive = alive
    query, image = _of_tile(query_alive, image_alive, tile)
    return jnp.where(query[:, None] & image[None], tile.scores, 0)


def pair_sizes(query: jax.Array, gallery: jax.Array) -> tuple[int, int]:
    """`(Q, G)`: how many queries and gallery images two arrays are about."""
    return query.shape[0], gallery.shape[0]


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
