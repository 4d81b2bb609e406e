"""The mutual neighbour graph of diffusion (eq. 9), as a sparse matrix.

`mutual_graph` packs the gallery's own lists into the graph, `propagate` multiplies it
with many columns at once. Derivatives are written by hand where those of the kernels
would overflow, or would run through loops whose length depends on data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    trips: jax.Array | None  # int32, of the loop until all edges are added; None: all


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
    return _normalised(graph.scores, jnp.asarray(gamma, jnp.float32), graph.ids, linked)


@jax.custom_jvp
def _normalised(
    cosine: jax.Array, gamma: jax.Array, ids: jax.Array, linked: jax.Array
) -> jax.Array:
    """`S = D^-1/2 A D^-1/2` with `A = max(cosine, 0)^gamma` where `linked`, `[G, K]`.

    The derivative of `degree^-1/2` overflows for small degrees, so that it is taken in
    logarithms: `d S_ij = S_ij (d log A_ij - (d log D_i + d log D_j) / 2)`, with
    `d log D_i` the mean of `d log A_ij` over the edges of i, weighted by `A_ij`.
    """
    weights = _edges(cosine, gamma, linked)  # A
    degree = jnp.sum(weights, axis=1)
    # D^-1/2, and 0 for images without an edge.
    scale = jnp.where(degree > 0, lax.rsqrt(jnp.where(degree > 0, degree, 1)), 0)
    return weights * scale[:, None] * scale[ids]


def _edges(cosine: jax.Array, gamma: jax.Array, linked: jax.Array) -> jax.Array:
    return jnp.where(linked, clipped_power(cosine, gamma), 0)


@_normalised.defjvp
def _normalised_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    cosine, gamma, ids, linked = primals
    cosine_dot, gamma_dot, *_ = tangents
    normal = _normalised(cosine, gamma, ids, linked)
    weights = _edges(cosine, gamma, linked)
    degree = jnp.sum(weights, axis=1, keepdims=True)
    share = weights / jnp.where(degree > 0, degree, 1)  # of an edge in its row
    # What is clipped, and then weighs 1 if gamma is 0, does not move.
    above = linked & (cosine > 0)
    safe = jnp.where(above, cosine, 1)
    moved = gamma * cosine_dot / safe + gamma_dot * jnp.log(safe)
    edge = jnp.where(above, moved, 0)  # d log A
    # A product for the reason given in `_checks._lengths`.
    row = jnp.einsum("gk,gk->g", share, edge, precision="highest")  # [G], d log D
    return normal, normal * (edge - (row[:, None] + row[ids]) / 2)


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
        trips = None if is_wide() else -(-degree[nodes[0]] // unroll)

        def pack(values: jax.Array) -> jax.Array:
            empty = jnp.zeros((slots, len(nodes)), values.dtype)
            return empty.at[at].set(values, mode="drop")

        return Edges(pack(place[graph.ids[nodes]]), pack(weights[nodes]), trips)

    return MutualGraph(place, tuple(map(block, range(0, G, rows))))


@jax.custom_jvp
def propagate(graph: MutualGraph, f: jax.Array) -> jax.Array:
    """The product `S f` `[G, b]` of columns f `[G, b]`, both in the graph's order."""
    unroll = by_form(cpu=_CPU_UNROLL, wide=_WIDE_UNROLL)

    def rows(edges: Edges) -> jax.Array:
        def trip(j: jax.Array, total: jax.Array) -> jax.Array:
            ids = lax.dynamic_slice_in_dim(edges.ids, j * unroll, unroll)
            weights = lax.dynamic_slice_in_dim(edges.weights, j * unroll, unroll)
            return _add_edges(total, ids, weights, f)

        slots, R = edges.ids.shape
        trips = slots // unroll if edges.trips is None else edges.trips
        return repeat(trips, trip, jnp.zeros((R, f.shape[1]), f.dtype))

    # A Python loop, unrolled: a `fori_loop` over blocks takes a third longer, as it
    # has to slice the edges and write into the result.
    return jnp.concatenate([rows(edges) for edges in graph.blocks])


def _add_edges(
    total: jax.Array, ids: jax.Array, weights: jax.Array, f: jax.Array
) -> jax.Array:
    """Adds the edges of some slots `[u, R]` to a total `[R, b]`."""
    for i in range(ids.shape[0]):
        row = f.at[ids[i]].get(mode="promise_in_bounds")
        total = total + weights[i][:, None] * row
    return total


@propagate.defjvp
def _propagate_jvp(
    primals: tuple[MutualGraph, jax.Array], tangents: tuple[MutualGraph, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """`d (S f) = S df + dS f`."""
    (graph, f), (graph_dot, f_dot) = primals, tangents
    weights = tuple(edges.weights for edges in graph_dot.blocks)
    return propagate(graph, f), _symmetric(graph, f_dot) + _all_slots(graph, weights, f)


def _all_slots(
    graph: MutualGraph, weights: tuple[jax.Array, ...], f: jax.Array
) -> jax.Array:
    """`propagate` with other weights, by loops of known length.

    In reverse mode the rows of f are gathered anew: they would take K times its memory.
    """
    unroll = by_form(cpu=_CPU_UNROLL, wide=_WIDE_UNROLL)

    def rows(ids: jax.Array, weights: jax.Array) -> jax.Array:
        @jax.checkpoint
        def trip(
            total: jax.Array, slots: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, None]:
            return _add_edges(total, *slots, f), None

        R = ids.shape[1]
        slots = ids.reshape(-1, unroll, R), weights.reshape(-1, unroll, R)
        return lax.scan(trip, jnp.zeros((R, f.shape[1]), f.dtype), slots)[0]

    pairs = zip((edges.ids for edges in graph.blocks), weights, strict=True)
    return jnp.concatenate([rows(*pair) for pair in pairs])


def _symmetric(graph: MutualGraph, f: jax.Array) -> jax.Array:
    """`propagate`, transposed by `propagate` too: S is symmetric.

    Left to itself, reverse mode would turn the gather of `propagate` into a scatter,
    which is slow, and could not turn a loop whose length depends on data at all. JAX
    lets a user give the transpose of a linear function only as that of a solution: so
    `S f` is written as the x that solves the two equations `x - S g = 0` and `g = f`,
    with both solutions, of the system and of its transpose, given by `propagate`.
    """

    def system(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, g = pair
        weights = tuple(edges.weights for edges in graph.blocks)
        return x - _all_slots(graph, weights, g), g

    def solve(
        _: Callable[..., Any], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        x, g = right
        return x + propagate(graph, g), g

    def solve_transposed(
        _: Callable[..., Any], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        x, g = right
        return x, g + propagate(graph, x)

    # Zeros that depend on f: for derivatives of derivatives, all of the right side and
    # all of the solution have to take part.
    x, g = lax.custom_linear_solve(
        system, (f - f, f), solve, transpose_solve=solve_transposed
    )
    return x + (g - g)
