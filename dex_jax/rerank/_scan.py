"""Scores of rank steps as tiles, and what is made of them: all scores, or the best.

Every rank step offers one thing, a `Scan`: an iterator over tiles of its scores.
`all_scores` writes the tiles into `[Q, G]`; `best_scores` sends each through the refine
steps and takes the best of each query out of it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax.neighbors._mesh import RowShards, gather_lists, on_parts, part_start
from dex_jax.neighbors._selection import no_neighbors
from dex_jax.rerank._embeddings import Ranking, best

Carry = TypeVar("Carry")


class Tile(NamedTuple):
    """Scores of some queries with some images.

    A tile has all queries or all images of a device's part of the matrix `[Q, G]`.

    Attributes:
        scores: `[b, c]` float32.
        row: scalar int32, the first query.
        column: scalar int32, the first image.
    """

    scores: jax.Array
    row: jax.Array
    column: jax.Array


# From a tile to its scores after a refine step.
Adjust = Callable[[Tile], jax.Array]
# The iterator: (own, whole, take, carry) -> carry. It calls `take(carry, tile)` for
# tiles by rising row and column. The last tile may begin early and repeat queries or
# images of the one before it, with the same scores.
Tiles = Callable[[Any, Any, Callable[[Carry, Tile], Carry], Carry], Carry]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["own", "whole"],
    meta_fields=["tiles", "sizes", "images", "split", "shards"],
)
@dataclass(frozen=True)
class Scan:
    """The scores of a rank step, not yet computed.

    Attributes:
        own: tree of arrays whose rows are the gallery's images, or the queries: on a
            mesh each device has its own part.
        whole: tree of arrays that every device sees whole.
        tiles: the iterator over tiles of the scores of `own`.
        sizes: `(Q, G)`, padding included.
        images: how many of the G columns are images and no padding.
        split: what the rows of `own` are.
        shards: how they are split over a mesh; None on one device.
    """

    own: Any
    whole: Any
    tiles: Tiles
    sizes: tuple[int, int]
    images: int
    split: Literal["gallery", "queries"]
    shards: RowShards | None = None


class _Origin(NamedTuple):
    """Which part of the scores `[Q, G]` a device works on."""

    row: jax.Array  # scalar int32, its first query
    column: jax.Array  # scalar int32, its first image
    rows: int
    columns: int


class _Kept(NamedTuple):
    """What `best_scores` carries from tile to tile."""

    best: Ranking  # [Q, K]
    seen: jax.Array  # scalar int32, images below this were in earlier tiles


@jax.jit
def all_scores(scan: Scan) -> jax.Array:
    """Scores `[Q, G]`."""

    def part(own: Any, whole: Any, origin: _Origin) -> jax.Array:
        scan, _ = whole

        def take(scores: jax.Array, tile: Tile) -> jax.Array:
            place = (tile.row, tile.column)
            return lax.dynamic_update_slice(scores, tile.scores, place)

        empty = jnp.zeros((origin.rows, origin.columns), jnp.float32)
        return scan.tiles(own, scan.whole, take, empty)

    return _on_parts(scan, (), part, join=1 if scan.split == "gallery" else 0)


@functools.partial(jax.jit, static_argnames=("top",))
def best_scores(scan: Scan, adjust: tuple[Adjust, ...] = (), *, top: int) -> Ranking:
    """The best `top` of `all_scores`, at most G, without ever holding Q x G.

    On a mesh every device holds the whole ranking.
    """

    def part(own: Any, whole: Any, origin: _Origin) -> Ranking:
        scan, adjust = whole
        width = min(top, origin.columns)

        def take(kept: _Kept, tile: Tile) -> _Kept:
            scores = _adjusted(tile, adjust, origin)
            if adjust:
                # -inf marks entries that a list has not filled yet. Images that a
                # refine step masks get the least finite score until the end.
                scores = jnp.maximum(scores, jnp.finfo(scores.dtype).min)
            if scan.images < scan.sizes[1]:
                column = origin.column + tile.column
                image = column + jnp.arange(scores.shape[1], dtype=jnp.int32)
                scores = jnp.where((image < scan.images)[None], scores, -jnp.inf)
            tile = tile._replace(scores=scores)
            if scores.shape[1] == origin.columns:
                return _keep_rows(kept, tile, width)
            return _keep_columns(kept, tile, width)

        empty = Ranking(*no_neighbors(origin.rows, width))
        kept = scan.tiles(own, scan.whole, take, _Kept(empty, jnp.int32(0))).best
        kept = Ranking(kept.ids + origin.column, kept.scores)
        if scan.split == "gallery":
            kept = gather_lists(kept, scan.shards, top)
        elif scan.shards is not None:
            kept = Ranking(
                *(lax.all_gather(x, scan.shards.axes, tiled=True) for x in kept)
            )
        masked = kept.scores == jnp.finfo(kept.scores.dtype).min
        return Ranking(kept.ids, jnp.where(masked, -jnp.inf, kept.scores))

    return _on_parts(scan, adjust, part, join=None)


def _adjusted(tile: Tile, adjust: tuple[Adjust, ...], origin: _Origin) -> jax.Array:
    """The scores of a tile after the refine steps."""
    # Refine steps hold arrays of the whole [Q, G], so tiles get their place in that.
    for step in adjust:
        place = Tile(tile.scores, origin.row + tile.row, origin.column + tile.column)
        tile = tile._replace(scores=step(place))
    return tile.scores


def _keep_rows(kept: _Kept, tile: Tile, k: int) -> _Kept:
    """The best of a tile that holds all images of some queries."""
    found = best(tile.scores, k)
    written = jax.tree.map(
        lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, tile.row, 0),
        kept.best,
        found,
    )
    return kept._replace(best=written)


def _keep_columns(kept: _Kept, tile: Tile, k: int) -> _Kept:
    """The best of what was kept and a tile that holds some images of all queries."""
    ids = tile.column + jnp.arange(tile.scores.shape[1], dtype=jnp.int32)
    # A last tile that begins early repeats images, which must not enter twice.
    scores = jnp.where(ids[None] < kept.seen, -jnp.inf, tile.scores)
    # Kept entries stand first and have lower ids, so that they win ties.
    place = best(jnp.concatenate([kept.best.scores, scores], axis=1), k)
    ids = jnp.broadcast_to(ids[None], scores.shape)
    ids = jnp.concatenate([kept.best.ids, ids], axis=1)
    ids = jnp.take_along_axis(ids, place.ids, axis=1)
    return _Kept(Ranking(ids, place.scores), tile.column + tile.scores.shape[1])


def _on_parts(
    scan: Scan,
    adjust: tuple[Adjust, ...],
    part: Callable[[Any, Any, _Origin], Any],
    *,
    join: int | None,
) -> Any:
    """Runs `part` on the whole, or on every device's own rows."""
    Q, G = scan.sizes
    shards = scan.shards
    parts = 1 if shards is None else shards.parts
    # The split arrays are passed apart from the scan, which goes whole to each device.
    rest = replace(scan, own=None)
    zero = jnp.int32(0)
    if scan.split == "gallery":

        def images(own: Any, whole: Any) -> Any:
            columns = G // parts
            start = part_start(shards, columns)
            return part(own, whole, _Origin(zero, start, Q, columns))

        return on_parts(images, shards, join=join)(scan.own, (rest, adjust))
    size = -(-Q // parts)  # queries of a device

    def queries(own: Any, whole: Any) -> Any:
        # Like blocks, the last parts begin early where they would end outside; queries
        # in two parts get the same scores twice.
        start = jnp.minimum(part_start(shards, size), Q - size)
        return part(own, whole, _Origin(start, zero, size, G))

    run = on_parts(queries, shards, join=join)
    if Q % parts == 0:
        return run(scan.own, (rest, adjust))
    # A mesh can only split arrays evenly: queries in two parts are repeated, and the
    # scores of query q are read from part q // size.
    firsts = np.minimum(np.arange(parts) * size, Q - size)
    rows = (firsts[:, None] + np.arange(size)).ravel()  # [parts x size]
    found = run(jax.tree.map(lambda x: x[rows], scan.own), (rest, adjust))
    query = np.arange(Q)
    place = query + (query // size) * size - firsts[query // size]
    return jax.tree.map(lambda x: x[place], found)
