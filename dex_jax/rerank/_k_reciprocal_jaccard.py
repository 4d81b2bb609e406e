"""Jaccard similarity of sparse encodings, queries against gallery."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._blocks import Blocks, divide, map_blocks, repeat, take_rows
from dex_jax.neighbors._form import by_form, is_wide
from dex_jax.rerank._k_reciprocal_sets import Encoding

Carry = TypeVar("Carry")

# Bytes of the table of a tile's encodings, [points, tile].
_CPU_BYTES = 64 * 2**20
_WIDE_BYTES = 2**30
_LEAST_TILE = 256  # narrower tiles leave too little work for each support entry
_ENTRY_COST = 12  # clearing one entry takes as long as so many in a row
_PAIRS = 1024  # encodings added to a table at a time where most are left out
# Queries at a time, and support entries added up in one trip of the loop.
_CPU_QUERIES, _CPU_TRIP = 128, 8
_WIDE_QUERIES, _WIDE_TRIP = 256, 32


class Support(NamedTuple):
    """Expanded encodings of the queries, entries of one point joined.

    Attributes:
        ids: `[Q, S]` int32, used slots first.
        weights: `[Q, S]` float32, zero in unused slots.
        most: scalar int32, slots that the fullest row needs.
    """

    ids: jax.Array
    weights: jax.Array
    most: jax.Array


@functools.partial(jax.jit, static_argnames=("size",))
def query_support(
    encoding: Encoding, lists: jax.Array, k2: jax.Array | None = None, *, size: int
) -> Support:
    """Local query expansion: the mean encoding of each query's `lists` `[Q, K]`.

    Where given, the first `k2` of a list count alone.
    """
    N, W = encoding.ids.shape
    Q, K = lists.shape
    most = by_form(cpu=_CPU_BYTES, wide=_WIDE_BYTES)
    blocks = divide(Q, most // (4 * (N + 4 * K * W)))
    row = jnp.arange(blocks.size, dtype=jnp.int32)[:, None]

    def one_block(i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        near = blocks.take(lists, i)
        ids, weights = _listed(encoding, near, k2)  # [b, K x W]
        table = jnp.zeros((blocks.size, N), jnp.float32)
        table = table.at[row, ids].add(weights, mode="promise_in_bounds")
        ids = jnp.sort(jnp.where(weights > 0, ids, N), axis=1)
        first = jnp.concatenate(
            [jnp.full((blocks.size, 1), True), ids[:, 1:] != ids[:, :-1]], axis=1
        )
        first &= ids < N
        place = jnp.cumsum(first, axis=1, dtype=jnp.int32)
        joined = jnp.zeros((blocks.size, size), jnp.int32)
        joined = joined.at[row, jnp.where(first, place - 1, size)].set(ids, mode="drop")
        count = place[:, -1]
        used = jnp.arange(size, dtype=jnp.int32)[None] < count[:, None]
        weights = table.at[row, joined].get(mode="promise_in_bounds")
        return joined, jnp.where(used, weights, 0), count

    ids, weights, count = map_blocks(one_block, blocks)
    return Support(ids, weights, count.max())


def _listed(
    encoding: Encoding, lists: jax.Array, k2: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Entries `[b, K x W]` of the mean encoding of each list `[b, K]`.

    Points may stand in several of the K encodings; beyond the first `k2` none counts.
    """
    ids, weights = take_rows(encoding.ids, lists), take_rows(encoding.weights, lists)
    if k2 is not None:
        counts = jnp.arange(lists.shape[1], dtype=jnp.int32)[None, :, None] < k2
        weights = jnp.where(counts, weights, 0)
    weights = weights / (lists.shape[1] if k2 is None else k2)
    return ids.reshape(len(lists), -1), weights.reshape(len(lists), -1)


class Compared(NamedTuple):
    """Encodings and supports, reduced to the points that some support has.

    What no query has in its support cannot be shared with one. In a pool much larger
    than the supports together the table of a tile is then much smaller, and most
    entries fall out: an inverted index, of points and not of queries.

    Attributes:
        encoding: of the pool, `ids` the rows of the table; from the table's size on
            they fall out.
        support: mean encodings of the queries, `ids` likewise.
        relevant: `[N]` bool, which encodings have a point of some support; None where
            the points are those of the whole pool.
        needed: scalar int32, rows that the table needs.
    """

    encoding: Encoding
    support: Support
    relevant: jax.Array | None
    needed: jax.Array


@functools.partial(jax.jit, static_argnames=("points",))
def compared(encoding: Encoding, support: Support, *, points: int) -> Compared:
    """Numbers the points of all supports; `points` is the size of the table.

    With as many points as the pool has, everything stays as it is.
    """
    N = encoding.ids.shape[0]
    if points == N:
        return Compared(encoding, support, None, jnp.int32(N))
    ids = jnp.where(support.weights > 0, support.ids, N)
    there = jnp.zeros(N, bool).at[ids].set(True, mode="drop")
    row = jnp.cumsum(there, dtype=jnp.int32) - 1
    row = jnp.where(there & (row < points), row, points)  # [N]
    # Unused slots have no weight: any row will do.
    own = jnp.minimum(take_rows(row, support.ids), points - 1)
    rows = take_rows(row, encoding.ids)  # [N, W]
    return Compared(
        encoding._replace(ids=rows),
        support._replace(ids=own),
        ((rows < points) & (encoding.weights > 0)).any(axis=1),
        there.sum(dtype=jnp.int32),
    )


class _Sorted(NamedTuple):
    """Supports in order of their size: queries of like size share a block.

    Otherwise all queries of a block wait for the one with the largest support.
    """

    ids: jax.Array  # [Q, S]
    weights: jax.Array  # [Q, S]
    back: jax.Array  # [Q], the place of each query
    blocks: Blocks
    trip: int  # S is a multiple of it


def over_gallery(
    found: Compared,
    lists: jax.Array,
    k2: jax.Array | None,
    take: Callable[[Carry, jax.Array, jax.Array], Carry],
    carry: Carry,
    *,
    points: int,
) -> Carry:
    """Compares the queries with one tile of the gallery after another.

    The Jaccard similarity of two encodings is `s / (2 - s)` with `s` the sum of the
    smaller weights, as both sum to one. A tile's mean encodings are laid out as a table
    `[points, tile]`; each query adds up the rows of its own support.

    Args:
        found: encodings of the pool and mean encodings of the queries.
        lists: `[G, K]` neighbours whose mean encoding stands for each gallery image.
        k2: the first of these that count; None for all.
        take: `(carry, start, similarity [Q, tile]) -> carry`, called for tiles in
            rising order. The last one begins early rather than ending outside: it
            holds images that an earlier tile held.
        carry: to begin with.
        points: rows of the table, N or those of all supports.

    Returns:
        The last carry.
    """
    G, K = lists.shape
    tiles = divide(G, tile_size(points))
    queries = _sorted(found.support)
    empty = jnp.zeros((points, tiles.size), jnp.float32)
    # Making the table anew costs its size for each tile, clearing it costs the entries.
    entries = _ENTRY_COST * K * found.encoding.ids.shape[1]
    keep = not is_wide() and (entries < points or found.relevant is not None)

    def one_tile(
        i: jax.Array, state: tuple[Carry, jax.Array | None]
    ) -> tuple[Carry, jax.Array | None]:
        carry, table = state
        near = tiles.take(lists, i)
        filled = _fill(empty if table is None else table, found, near, k2)
        shared = _shared(queries, filled)
        if table is not None:
            # A zero computed from what was read, so that the clearing depends on the
            # reading: merely ordered after it, XLA would copy the table for it.
            zero = jnp.where(shared[0, 0] < 0, 1.0, 0.0)
            table = _fill(filled, found, near, k2, clear=zero)
        shared = take_rows(shared, queries.back)  # [Q, tile]
        return take(carry, tiles.start(i), shared / (2 - shared)), table

    table = empty if keep else None
    return repeat(tiles.number, one_tile, (carry, table))[0]


def _fill(
    table: jax.Array,
    found: Compared,
    near: jax.Array,
    k2: jax.Array | None,
    *,
    clear: jax.Array | None = None,
) -> jax.Array:
    """Adds the mean encodings of lists `[tile, K]` to a table `[points, tile]`.

    With `clear` their entries are set to it instead.
    """
    tile, K = near.shape

    def write(
        table: jax.Array, rows: jax.Array, column: jax.Array, values: jax.Array
    ) -> jax.Array:
        entry = table.at[rows, column]
        if clear is None:
            return entry.add(values, mode="drop")
        return entry.set(clear, mode="drop")

    if found.relevant is None:
        rows, values = _listed(found.encoding, near, k2)  # [tile, K x W]
        return write(table, rows, jnp.arange(tile, dtype=jnp.int32)[:, None], values)
    # Few encodings of a list have a point of a support: these alone, some at a time.
    relevant = take_rows(found.relevant, near).reshape(-1)
    place = jnp.cumsum(relevant, dtype=jnp.int32)
    pairs = jnp.zeros(tile * K, jnp.int32)
    at = jnp.where(relevant, place - 1, tile * K)
    pairs = pairs.at[at].set(jnp.arange(tile * K, dtype=jnp.int32), mode="drop")

    def some(i: jax.Array, table: jax.Array) -> jax.Array:
        slot = i * _PAIRS + jnp.arange(_PAIRS, dtype=jnp.int32)
        pair = take_rows(pairs, jnp.minimum(slot, tile * K - 1))
        point = take_rows(near.reshape(-1), pair)[:, None]  # a list of one neighbour
        rows, values = _listed(found.encoding, point, None)  # [b, W]
        inside = (slot < place[-1])[:, None]
        if k2 is not None:
            inside &= (pair % K < k2)[:, None]
        rows = jnp.where(inside, rows, table.shape[0])
        values = values / (K if k2 is None else k2)
        return write(table, rows, (pair // K)[:, None], values)

    return repeat(-(-place[-1] // _PAIRS), some, table)


def tile_size(points: int) -> int:
    """Gallery images in a tile, at most: its table is points x tile."""
    most = by_form(cpu=_CPU_BYTES, wide=_WIDE_BYTES)
    return max(_LEAST_TILE, most // (4 * points))


def _sorted(support: Support) -> _Sorted:
    order = jnp.argsort((support.weights > 0).sum(axis=1))
    trip = by_form(cpu=_CPU_TRIP, wide=_WIDE_TRIP)
    pad = ((0, 0), (0, -support.ids.shape[1] % trip))
    return _Sorted(
        jnp.pad(support.ids[order], pad),
        jnp.pad(support.weights[order], pad),
        jnp.argsort(order),
        divide(len(order), by_form(cpu=_CPU_QUERIES, wide=_WIDE_QUERIES)),
        trip,
    )


def _shared(queries: _Sorted, table: jax.Array) -> jax.Array:
    """Sums min(query weight, gallery weight) over each query's support, `[Q, tile]`."""
    blocks, columns = queries.blocks, table.shape[1]

    def some_queries(i: jax.Array) -> jax.Array:
        ids, weights = blocks.take((queries.ids, queries.weights), i)
        used = (weights > 0).sum(axis=1, dtype=jnp.int32).max()

        def add(trip: jax.Array, total: jax.Array) -> jax.Array:
            for j in range(queries.trip):
                slot = trip * queries.trip + j
                weight = lax.dynamic_index_in_dim(weights, slot, 1)
                point = lax.dynamic_index_in_dim(ids, slot, 1, False)
                total = total + jnp.minimum(weight, take_rows(table, point))
            return total

        empty = jnp.zeros((blocks.size, columns), jnp.float32)
        return repeat(-(-used // queries.trip), add, empty)

    return map_blocks(some_queries, blocks)
