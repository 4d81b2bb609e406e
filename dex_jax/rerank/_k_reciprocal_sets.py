"""k-reciprocal sets and their sparse encodings (section 3.2, eq. 7 and 8).

The pool is the queries followed by the gallery, `N = Q + G` points; a point stands in
its own list. Every set is a row of fixed size: the slots of the point's neighbour
list, with flags, and a few slots for members that expansion brings from outside.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._lists import joined
from dex_jax.neighbors._mesh import (
    RowShards,
    gather_lists,
    on_parts,
    part_start,
    row_shards,
)
from dex_jax.neighbors._search import self_search
from dex_jax.neighbors._tiles import joint_search_tiles, self_search_tiles
from dex_jax.rerank._blocks import (
    even_block,
    map_blocks,
    map_blocks_with,
    take_rows,
)

_SLOT_BYTES = 32 * 2**20


class Pool(NamedTuple):
    """Neighbour lists of queries and gallery together.

    Attributes:
        ids: `[N, L]` int32, sorted by falling cosine, the point itself counted.
        cosines: `[N, L]` float32.
        minimum: `[N]` float32, the smallest cosine of each point over the pool.
    """

    ids: jax.Array
    cosines: jax.Array
    minimum: jax.Array


class Reach(NamedTuple):
    """Ranks up to which lists count, the point itself having rank 0; int32 scalars.

    Attributes:
        full: of the full lists, at most their width less 1.
        half: of the half lists, at most the static `half`.
    """

    full: jax.Array
    half: jax.Array


class Encoding(NamedTuple):
    """Sparse rows: `weights` at `ids`, zero elsewhere.

    Attributes:
        ids: `[N, W]` int32, distinct where the weight is not zero.
        weights: `[N, W]` float32, zero in unused slots.
    """

    ids: jax.Array
    weights: jax.Array


class Members(NamedTuple):
    """The sets R* of eq. 8.

    Attributes:
        listed: `[N, K]` bool, which neighbours of the point's list are members.
        extra: `[N, E]` int32, members from outside the list, -1 in unused slots.
        most: scalar int32, extra slots that the fullest row needs.
    """

    listed: jax.Array
    extra: jax.Array
    most: jax.Array


def pool_neighbors(
    query: jax.Array,
    gallery: jax.Array,
    graph: tuple[Neighbors, jax.Array] | None,
    *,
    width: int,
) -> Pool:
    """Finds the lists of all points, from the gallery's own lists where given.

    These are at least `width` wide, or G.
    """
    shards = row_shards(gallery)
    if graph is None and shards is None:
        return _whole_pool(query, gallery, width=width)
    if graph is None:
        # The pool's rows cannot be split evenly, but the gallery's are.
        graph = self_search(gallery, k=min(width, gallery.shape[0]))
    return _joined_pool(query, gallery, graph, width=width, shards=shards)


@functools.partial(jax.jit, static_argnames=("width",))
def _whole_pool(query: jax.Array, gallery: jax.Array, *, width: int) -> Pool:
    found, minimum = self_search(jnp.concatenate([query, gallery]), k=width)
    return Pool(found.ids, found.scores, minimum)


@functools.partial(jax.jit, static_argnames=("width", "shards"))
def _joined_pool(
    query: jax.Array,
    gallery: jax.Array,
    graph: tuple[Neighbors, jax.Array],
    *,
    width: int,
    shards: RowShards | None,
) -> Pool:
    """Lets the queries into the gallery's lists, and the gallery into theirs."""
    Q, G = query.shape[0], gallery.shape[0]

    def part(
        own: tuple[jax.Array, Neighbors], query: jax.Array
    ) -> tuple[tuple[Neighbors, jax.Array], tuple[Neighbors, jax.Array]]:
        rows, known = own
        (found, lowest), admitted = joint_search_tiles(
            query, rows, known, k=width, offset=part_start(shards, rows.shape[0])
        )
        found = gather_lists(found, shards, min(width, G))
        lowest = lowest if shards is None else lax.pmin(lowest, shards.axes)
        return (found, lowest), admitted

    known, minimum = graph
    (across, lowest), (lists, lowest_g) = on_parts(part, shards, join=(None, 0))(
        (gallery, known), query
    )
    # The largest distance of a point comes out of the same products as its neighbours.
    among, lowest_q = self_search_tiles(query, k=min(Q, width), minimum=True)
    found = joined(
        jnp.concatenate([among.ids, across.ids], axis=1),
        jnp.concatenate([among.scores, across.scores], axis=1),
        width,
    )
    return Pool(
        jnp.concatenate([found.ids, lists.ids]),
        jnp.concatenate([found.scores, lists.scores]),
        jnp.concatenate(
            [jnp.minimum(lowest_q, lowest), jnp.minimum(minimum, lowest_g)]
        ),
    )


def reciprocal(
    ids: jax.Array, half: int, reach: Reach | None = None
) -> tuple[jax.Array, jax.Array]:
    """Eq. 7: which neighbours have the point in their own list.

    Args:
        ids: `[N, K]` neighbour lists.
        half: rank up to which the half lists reach.
        reach: masks what lies beyond; None where both lists count to their end.

    Returns:
        `[N, K]` bool for the full lists, and the half sets as ids `[N, half + 1]`, -1
        where a neighbour is not reciprocal.
    """
    N, K = ids.shape
    block = even_block(N, _SLOT_BYTES // (4 * K * K))

    def ranks(start: jax.Array) -> jax.Array:
        point = start + jnp.arange(block, dtype=jnp.int32)
        lists = take_rows(ids, lax.dynamic_slice_in_dim(ids, start, block))
        rank = jnp.arange(K, dtype=jnp.int32)
        # A point stands in a list once at most: the sum is its rank, or K if absent.
        return K + jnp.sum(
            jnp.where(lists == point[:, None, None], rank[None, None] - K, 0), axis=2
        )  # [b, K]

    rank = map_blocks(ranks, rows=N, block=block)
    if reach is None:
        near = rank[:, : half + 1] <= half
        return rank < K, jnp.where(near, ids[:, : half + 1], -1)
    # Both must list the other: the larger of the two ranks counts.
    rank = jnp.maximum(rank, jnp.arange(K, dtype=jnp.int32)[None])
    near = rank[:, : half + 1] <= reach.half
    return rank <= reach.full, jnp.where(near, ids[:, : half + 1], -1)


@functools.partial(jax.jit, static_argnames=("half", "extra"))
def expand(
    ids: jax.Array, reach: Reach | None = None, *, half: int, extra: int
) -> Members:
    """Eq. 8: unites each set with the half sets that lie in it by more than 2/3.

    Args:
        ids: `[N, K]` neighbour lists.
        reach: masks what lies beyond; None where both lists count to their end. An
            entry beyond it is no neighbour, but may hold a member that others bring.
        half: rank up to which the half lists reach.
        extra: slots for members from outside the list. Where `most` is more, the sets
            are wrong, and `most` is a lower bound of what is needed.
    """
    N, K = ids.shape
    full, near = reciprocal(ids, half, reach)
    slots = K * (half + 1)
    block = even_block(N, _SLOT_BYTES // (4 * (N + 4 * slots)))
    row = jnp.arange(block, dtype=jnp.int32)[:, None]
    number = jnp.arange(1, slots + 1, dtype=jnp.int32)[None]

    def one_block(
        start: jax.Array, marks: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        own = lax.dynamic_slice_in_dim(ids, start, block)  # [b, K]
        inside = lax.dynamic_slice_in_dim(full, start, block)  # [b, K]
        # What each point of the pool is to the row: -2 in R, -1 in the list alone.
        marks = marks.at[row, own].set(
            jnp.where(inside, -2, -1), mode="promise_in_bounds"
        )
        members = take_rows(near, own)  # [b, K, H]
        real = (members >= 0) & inside[:, :, None]
        members = jnp.maximum(members, 0).reshape(block, slots)
        mark = marks.at[row, members].get(mode="promise_in_bounds")
        common = (real & (mark == -2).reshape(real.shape)).sum(axis=2)
        # Strictly more than two thirds, as the authors' code; in whole numbers.
        accepted = 3 * common > 2 * real.sum(axis=2)  # [b, K]
        new = (real & accepted[:, :, None]).reshape(block, slots) & (mark > -2)
        # Of the slots that bring one point, the table keeps the number of one alone.
        marks = marks.at[row, jnp.where(new, members, N)].set(number, mode="drop")
        listed = marks.at[row, own].get(mode="promise_in_bounds") != -1
        kept = marks.at[row, members].get(mode="promise_in_bounds") == number
        kept &= new & (mark == 0)
        place = jnp.cumsum(kept, axis=1, dtype=jnp.int32)
        brought = jnp.full((block, extra), -1, jnp.int32)
        brought = brought.at[row, jnp.where(kept, place - 1, extra)].set(
            members, mode="drop"
        )
        # All that was marked is listed or brought, unless slots ran out. The zero hangs
        # on what was read: what only has to come later is not cleared in place, but
        # copied whole.
        zero = jnp.where(listed[0, 0] & (place[0, -1] < 0), 1, 0)
        marks = marks.at[row, own].set(zero, mode="promise_in_bounds")
        used = jnp.where(brought >= 0, brought, N)
        marks = marks.at[row, used].set(zero, mode="drop")
        return (listed, brought, place[:, -1]), marks

    listed, brought, count = map_blocks_with(
        one_block, jnp.zeros((block, N), jnp.int32), rows=N, block=block
    )
    return Members(listed, brought, count.max())


@jax.jit
def encode(rows: jax.Array, pool: Pool, members: Members) -> Encoding:
    """Weights exp(-d) of the members, d scaled by its row maximum; rows sum to one."""
    N, K = members.listed.shape
    E = members.extra.shape[1]
    block = even_block(N, _SLOT_BYTES // (4 * rows.shape[1]))
    # Points that bring in about as many members share a block: none waits for another.
    order = jnp.argsort((members.extra >= 0).sum(axis=1))

    def cosines(start: jax.Array) -> jax.Array:
        points = lax.dynamic_slice_in_dim(order, start, block)
        own, other = take_rows(rows, points), take_rows(members.extra, points)

        def one(e: jax.Array, found: jax.Array) -> jax.Array:
            at = jnp.maximum(lax.dynamic_index_in_dim(other, e, 1, False), 0)
            value = jnp.sum(own * take_rows(rows, at), axis=1)
            return lax.dynamic_update_index_in_dim(found, value, e, 1)

        used = (other >= 0).sum(axis=1).max()
        return lax.fori_loop(0, used, one, jnp.zeros((block, E)))

    extra = take_rows(map_blocks(cosines, rows=N, block=block), jnp.argsort(order))
    cosine = jnp.concatenate([pool.cosines[:, :K], extra], axis=1)
    used = jnp.concatenate([members.listed, members.extra >= 0], axis=1)
    weight = jnp.where(used, jnp.exp(-distance(cosine, pool.minimum)), 0)
    total = weight.sum(axis=1, keepdims=True)
    return Encoding(
        jnp.concatenate([pool.ids[:, :K], jnp.maximum(members.extra, 0)], axis=1),
        # A point outside its own list, behind its duplicates, may have no member.
        weight / jnp.where(total == 0, 1, total),
    )


def distance(cosine: jax.Array, minimum: jax.Array) -> jax.Array:
    """Squared Euclidean distance `[N, K]` over its largest value in each row."""
    # Rounding may leave the cosine of equal rows a little above one.
    largest = jnp.maximum(1 - minimum[:, None], 0)
    return jnp.maximum(1 - cosine, 0) / jnp.where(largest == 0, 1, largest)
