"""Jaccard similarity of sparse encodings, queries against gallery."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.rerank._blocks import even_block, map_blocks, take_rows
from dex_jax.rerank._k_reciprocal_sets import Encoding

Tree = TypeVar("Tree")

_TILE_BYTES = 64 * 2**20
_LEAST_TILE = 256  # narrower tiles leave too little work for each support entry
_ENTRY_COST = 12  # clearing one entry takes as long as so many in a row
_QUERIES = 128
_TRIP = 8  # support entries added up in one trip of the loop


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


def query_support(
    encoding: Encoding, lists: jax.Array, k2: jax.Array | None = None, *, size: int
) -> Support:
    """Local query expansion: the mean encoding of each query's `lists` `[Q, K]`.

    Where given, the first `k2` of a list count alone.
    """
    N, W = encoding.ids.shape
    Q, K = lists.shape
    block = even_block(Q, _TILE_BYTES // (4 * (N + 4 * K * W)))
    row = jnp.arange(block, dtype=jnp.int32)[:, None]

    def one_block(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        near = lax.dynamic_slice_in_dim(lists, start, block)
        ids, weights = _listed(encoding, near, k2)  # [b, K x W]
        dense = (
            jnp.zeros((block, N))
            .at[row, ids]
            .add(weights / _number(lists, k2), mode="promise_in_bounds")
        )
        ids = jnp.sort(jnp.where(weights > 0, ids, N), axis=1)
        first = jnp.concatenate(
            [jnp.full((block, 1), True), ids[:, 1:] != ids[:, :-1]], axis=1
        )
        first &= ids < N
        place = jnp.cumsum(first, axis=1, dtype=jnp.int32)
        joined = jnp.zeros((block, size), jnp.int32)
        joined = joined.at[row, jnp.where(first, place - 1, size)].set(ids, mode="drop")
        count = place[:, -1]
        used = jnp.arange(size, dtype=jnp.int32)[None] < count[:, None]
        weights = dense.at[row, joined].get(mode="promise_in_bounds")
        return joined, jnp.where(used, weights, 0), count

    ids, weights, count = map_blocks(one_block, rows=Q, block=block)
    return Support(ids, weights, count.max())


def _listed(
    encoding: Encoding, lists: jax.Array, k2: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Entries of the encodings of each list `[b, K]`, 0 beyond the first `k2`."""
    ids, weights = take_rows(encoding.ids, lists), take_rows(encoding.weights, lists)
    if k2 is not None:
        counts = jnp.arange(lists.shape[1])[None, :, None] < k2
        weights = jnp.where(counts, weights, 0)
    return ids.reshape(len(lists), -1), weights.reshape(len(lists), -1)


def _number(lists: jax.Array, k2: jax.Array | None) -> int | jax.Array:
    return lists.shape[1] if k2 is None else k2


def over_gallery(
    support: Support,
    encoding: Encoding,
    lists: jax.Array,
    k2: jax.Array | None,
    take: Callable[[Tree, jax.Array, jax.Array], Tree],
    first: Tree,
) -> Tree:
    """Compares the queries with one tile of the gallery after another.

    Args:
        support: expanded encodings of the queries.
        encoding: encodings of the whole pool.
        lists: `[G, K]` neighbours whose mean encoding stands for each gallery image.
        k2: the first of these that count; None for all.
        take: `(carry, start, similarity [Q, tile]) -> carry`, called for tiles in
            rising order. The last one begins early rather than ending outside: it
            holds images that an earlier tile held.
        first: the carry to begin with.

    Returns:
        The last carry.
    """
    N, G = encoding.ids.shape[0], lists.shape[0]
    tile = tile_size(N, G)
    order = jnp.argsort((support.weights > 0).sum(axis=1))
    back = jnp.argsort(order)
    # Queries of like support share a block, and none waits for a much larger one.
    ids, weights = support.ids[order], support.weights[order]
    pad = ((0, 0), (0, -ids.shape[1] % _TRIP))
    ids, weights = jnp.pad(ids, pad), jnp.pad(weights, pad)
    column = jnp.arange(tile, dtype=jnp.int32)[:, None]

    # Making the table anew costs its size for each tile, clearing it costs the entries.
    keep = _ENTRY_COST * lists.shape[1] * encoding.ids.shape[1] < N

    def one_tile(
        i: jax.Array, state: tuple[Tree, jax.Array | None]
    ) -> tuple[Tree, jax.Array | None]:
        carry, table = state
        start = jnp.minimum(i * tile, G - tile)
        near = lax.dynamic_slice_in_dim(lists, start, tile)
        points, values = _listed(encoding, near, k2)
        values = values / _number(near, k2)
        # The mean encodings of the tile, [N, tile].
        dense = jnp.zeros((N, tile)) if table is None else table
        dense = dense.at[points, column].add(values, mode="promise_in_bounds")
        shared = _shared(ids, weights, dense)
        if table is not None:
            # A zero computed from what was read, so that the clearing depends on the
            # reading: merely ordered after it, XLA would copy the table for it.
            zero = jnp.where(shared[0, 0] < 0, 1.0, 0.0)
            table = dense.at[points, column].set(zero, mode="promise_in_bounds")
        shared = shared[back]  # [Q, tile]
        return take(carry, start, shared / (2 - shared)), table

    table = jnp.zeros((N, tile)) if keep else None
    return lax.fori_loop(0, -(-G // tile), one_tile, (first, table))[0]


def tile_size(pool: int, gallery: int) -> int:
    """Gallery images a tile: its expanded encodings are an array of pool x tile."""
    return even_block(gallery, max(_LEAST_TILE, _TILE_BYTES // (4 * pool)))


def _shared(ids: jax.Array, weights: jax.Array, dense: jax.Array) -> jax.Array:
    """Sums min(query weight, gallery weight) over each query's support, `[Q, tile]`."""
    Q = ids.shape[0]
    block = even_block(Q, _QUERIES)

    def some_queries(start: jax.Array) -> jax.Array:
        at = lax.dynamic_slice_in_dim(ids, start, block)
        weight = lax.dynamic_slice_in_dim(weights, start, block)
        trips = -(-(weight > 0).sum(axis=1).max() // _TRIP)

        def add(trip: jax.Array, total: jax.Array) -> jax.Array:
            for j in range(_TRIP):
                slot = trip * _TRIP + j
                mine = lax.dynamic_index_in_dim(weight, slot, 1)
                rows = lax.dynamic_index_in_dim(at, slot, 1, False)
                total = total + jnp.minimum(mine, take_rows(dense, rows))
            return total

        return lax.fori_loop(0, trips, add, jnp.zeros((block, dense.shape[1])))

    return map_blocks(some_queries, rows=Q, block=block)
