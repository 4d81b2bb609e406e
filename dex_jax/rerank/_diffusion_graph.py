"""The mutual neighbour graph of diffusion (eq. 9), as a sparse matrix.

`mutual_graph` packs the gallery's own lists into the graph, `propagate` multiplies it
with many columns at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._blocks import repeat
from dex_jax.neighbors._form import by_form, is_wide
from dex_jax.rerank._query_expansion import clipped_power, first_few

# Neighbours added in one trip of the loop: XLA fuses their gathers into one pass.
_CPU_UNROLL, _WIDE_UNROLL = 10, 25
# The wide form's columns at a time at most, and numbers [G, columns], 512 MiB.
_WIDE_COLUMNS, _WIDE_NUMBERS = 512, 2**27
# Blocks with fewer rows cost more to start than the slots they skip.
_LEAST_ROWS = 4096


class Block(NamedTuple):
    """How a product is divided.

    Attributes:
        blocks: most blocks of rows; the program has code for each of them.
        columns: columns, that is queries, multiplied at a time.
    """

    blocks: int
    columns: int


def block_size(rows: int) -> Block:
    """How products of a graph of so many rows are divided.

    A CPU wants so few columns that f `[rows, columns]` stays in its caches, an
    accelerator few large kernels.
    """
    columns = max(32, min(_WIDE_COLUMNS, _WIDE_NUMBERS // rows))
    return by_form(cpu=Block(8, 32), wide=Block(1, columns))


class Edges(NamedTuple):
    """The edges of a block of R rows, K slots for each row."""

    ids: jax.Array  # [K, R] int32, the other node, numbered in the graph's order
    weights: jax.Array  # [K, R] float32, 0 in empty slots
    trips: int | jax.Array  # trips of the loop after which all edges are added


class MutualGraph(NamedTuple):
    """A sparse symmetric matrix `[G, G]`, its nodes in order of falling degree.

    Rows of a block have much the same degree, so that a product skips most slots that
    are empty. Each block is an array of its own: a slice of a larger one would be
    copied at every product.
    """

    place: jax.Array  # [G] int32, the place of each image in the graph's order
    blocks: tuple[Edges, ...]


def mutual(graph: Neighbors, k: jax.Array | None = None) -> jax.Array:
    """`[G, K]` bool: which of the listed neighbours list the image too; never itself.

    Only the first `k` entries of the lists count, all of them if None.
    """
    ids = graph.ids
    G, K = ids.shape
    row = jnp.arange(G, dtype=ids.dtype)[:, None]
    columns = ids.T  # [K, G]

    # Entry j of all neighbours' lists at a time: no array [G, K, K].
    def listed(j: jax.Array, found: jax.Array) -> jax.Array:
        there = columns[j].at[ids].get(mode="promise_in_bounds") == row
        return found | (there if k is None else there & (j < k))

    found = repeat(K, listed, jnp.zeros((G, K), bool))
    return first_few(found & (ids != row), k)


def edge_weights(
    graph: Neighbors, linked: jax.Array, gamma: float | jax.Array
) -> jax.Array:
    """Eq. 9: weights `[G, K]` of the normalised graph `S`, 0 where not `linked`."""
    weights = jnp.where(linked, clipped_power(graph.scores, gamma), 0)  # A
    degree = jnp.sum(weights, axis=1)
    # D^-1/2, and 0 for images without an edge.
    scale = jnp.where(degree > 0, lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
    return weights * scale[:, None] * scale[graph.ids]


def mutual_graph(
    graph: Neighbors, gamma: float | jax.Array, k: jax.Array | None = None
) -> MutualGraph:
    """Packs the first `k` entries, or all, of lists `[G, K]` into the graph `S`."""
    G, K = graph.ids.shape
    linked = mutual(graph, k)
    weights = edge_weights(graph, linked, gamma)
    degree = jnp.sum(linked, axis=1)
    order = jnp.argsort(-degree, stable=True).astype(jnp.int32)
    place = jnp.zeros(G, jnp.int32).at[order].set(jnp.arange(G, dtype=jnp.int32))

    blocks = max(1, min(block_size(G).blocks, G // _LEAST_ROWS))
    rows = -(-G // blocks)
    unroll = by_form(cpu=_CPU_UNROLL, wide=_WIDE_UNROLL)
    slots = -(-K // unroll) * unroll
    # An edge's slot: how many edges of its row stand before it. Neighbours that are not
    # mutual get a slot out of range, which `pack` drops.
    slot = jnp.where(linked, jnp.cumsum(linked, axis=1) - 1, slots)

    def block(first: int) -> Edges:
        nodes = order[first : first + rows]
        at = (slot[nodes], jnp.arange(len(nodes))[:, None])
        # The first row of a block has the most edges. The wide form goes through all
        # slots, since the host would have to read a length that depends on data.
        trips = slots // unroll if is_wide() else -(-degree[nodes[0]] // unroll)

        def pack(values: jax.Array) -> jax.Array:
            empty = jnp.zeros((slots, len(nodes)), values.dtype)
            return empty.at[at].set(values, mode="drop")

        return Edges(pack(place[graph.ids[nodes]]), pack(weights[nodes]), trips)

    return MutualGraph(place, tuple(map(block, range(0, G, rows))))


def propagate(graph: MutualGraph, f: jax.Array) -> jax.Array:
    """The product `S f` `[G, b]` of columns f `[G, b]`, both in the graph's order."""
    unroll = by_form(cpu=_CPU_UNROLL, wide=_WIDE_UNROLL)

    def rows(edges: Edges) -> jax.Array:
        def trip(j: jax.Array, total: jax.Array) -> jax.Array:
            ids = lax.dynamic_slice_in_dim(edges.ids, j * unroll, unroll)
            weights = lax.dynamic_slice_in_dim(edges.weights, j * unroll, unroll)
            for i in range(unroll):
                row = f.at[ids[i]].get(mode="promise_in_bounds")
                total = total + weights[i][:, None] * row  # [R, b]
            return total

        empty = jnp.zeros((edges.ids.shape[1], f.shape[1]), f.dtype)
        return repeat(edges.trips, trip, empty)

    # A Python loop, unrolled: a `fori_loop` over blocks takes a third longer, as it
    # has to slice the edges and write into the result.
    return jnp.concatenate([rows(edges) for edges in graph.blocks])
