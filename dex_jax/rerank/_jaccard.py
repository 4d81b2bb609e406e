"""Jaccard similarity of sparse encodings, queries against gallery."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.rerank._blocks import even_block, map_blocks, take_rows
from dex_jax.rerank._k_reciprocal_sets import Encoding

_TILE_BYTES = 64 * 2**20
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


def query_support(encoding: Encoding, lists: jax.Array, *, size: int) -> Support:
    """Local query expansion: the mean encoding of each query's `lists` `[Q, k2]`."""
    N, W = encoding.ids.shape
    Q, k2 = lists.shape
    block = even_block(Q, _TILE_BYTES // (4 * (N + 4 * k2 * W)))
    row = jnp.arange(block, dtype=jnp.int32)[:, None]

    def one_block(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        near = lax.dynamic_slice_in_dim(lists, start, block)
        ids = take_rows(encoding.ids, near).reshape(block, k2 * W)
        weights = take_rows(encoding.weights, near).reshape(block, k2 * W)
        dense = (
            jnp.zeros((block, N))
            .at[row, ids]
            .add(weights / k2, mode="promise_in_bounds")
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


def jaccard(support: Support, encoding: Encoding, lists: jax.Array) -> jax.Array:
    """Jaccard similarity `[Q, G]` of queries and the gallery points of `lists`.

    Args:
        support: expanded encodings of the queries.
        encoding: encodings of the whole pool.
        lists: `[G, k2]` neighbours whose mean encoding stands for each gallery point.
    """
    N, W = encoding.ids.shape
    G, k2 = lists.shape
    Q, S = support.ids.shape
    tile = even_block(G, _TILE_BYTES // (4 * N))
    order = jnp.argsort((support.weights > 0).sum(axis=1))
    ids, weights = support.ids[order], support.weights[order]
    pad = -S % _TRIP
    ids = jnp.pad(ids, ((0, 0), (0, pad)))
    weights = jnp.pad(weights, ((0, 0), (0, pad)))
    block = even_block(Q, 32)

    def one_tile(start: jax.Array) -> jax.Array:
        near = lax.dynamic_slice_in_dim(lists, start, tile)
        column = jnp.arange(tile, dtype=jnp.int32)[:, None]
        points = take_rows(encoding.ids, near).reshape(tile, k2 * W)
        values = take_rows(encoding.weights, near).reshape(tile, k2 * W)
        dense = (
            jnp.zeros((N, tile))
            .at[points, column]
            .add(values / k2, mode="promise_in_bounds")
        )

        def some_queries(first: jax.Array) -> jax.Array:
            at = lax.dynamic_slice_in_dim(ids, first, block)
            weight = lax.dynamic_slice_in_dim(weights, first, block)
            trips = -(-(weight > 0).sum(axis=1).max() // _TRIP)

            def add(trip: jax.Array, total: jax.Array) -> jax.Array:
                for j in range(_TRIP):
                    slot = trip * _TRIP + j
                    mine = lax.dynamic_index_in_dim(weight, slot, 1)
                    rows = lax.dynamic_index_in_dim(at, slot, 1, False)
                    total = total + jnp.minimum(mine, take_rows(dense, rows))
                return total

            return lax.fori_loop(0, trips, add, jnp.zeros((block, tile)))

        return map_blocks(some_queries, rows=Q, block=block).T

    shared = map_blocks(one_tile, rows=G, block=tile)  # [G, Q]
    shared = shared.T[jnp.argsort(order)]
    return shared / (2 - shared)
