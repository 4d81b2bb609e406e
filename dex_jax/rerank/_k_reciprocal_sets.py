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

from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._blocks import (
    divide,
    map_blocks,
    map_blocks_with,
    repeat,
    take_rows,
)
from dex_jax.neighbors._form import by_form, is_wide

# Bytes of a block's largest array.
_CPU_BYTES = 32 * 2**20
_WIDE_BYTES = 2**30


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
    blocks = divide(N, _block_bytes() // (4 * K * K))

    def ranks(i: jax.Array) -> jax.Array:
        point = blocks.start(i) + jnp.arange(blocks.size, dtype=jnp.int32)
        lists = take_rows(ids, blocks.take(ids, i))  # [b, K, K]
        rank = jnp.arange(K, dtype=jnp.int32) - K
        # A point stands in a list once at most: the sum is its rank, or K if absent.
        here = jnp.where(lists == point[:, None, None], rank[None, None], 0)
        return K + jnp.sum(here, axis=2, dtype=jnp.int32)  # [b, K]

    rank = map_blocks(ranks, blocks)
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
    blocks = divide(N, _block_bytes() // (4 * (N + 4 * K * (half + 1))))

    def one_block(i: jax.Array, marks: jax.Array) -> tuple[_Expanded, jax.Array]:
        own = _Own(blocks.take(ids, i), blocks.take(full, i))
        return _expand_block(own, near, marks, extra)

    scratch = jnp.zeros((blocks.size, N), jnp.int32)
    found = map_blocks_with(one_block, scratch, blocks)
    return Members(found.listed, found.brought, found.needed.max())


class _Own(NamedTuple):
    """Lists of a block of points, and which of their entries are reciprocal."""

    ids: jax.Array  # [b, K] int32
    inside: jax.Array  # [b, K] bool


class _Expanded(NamedTuple):
    listed: jax.Array  # [b, K] bool
    brought: jax.Array  # [b, extra] int32, -1 in unused slots
    needed: jax.Array  # [b] int32, what was brought, and what did not fit


def _expand_block(
    own: _Own, near: jax.Array, marks: jax.Array, extra: int
) -> tuple[_Expanded, jax.Array]:
    """Eq. 8 for a block of points.

    Args:
        own: their lists `[b, K]`.
        near: `[N, H]` half sets of all points, -1 where not reciprocal.
        marks: `[b, N]` zeros; what each point of the pool is to a row of the block.
        extra: slots for members from outside the list.

    Returns:
        The sets, and `marks` cleared again.
    """
    (b, K), H, N = own.ids.shape, near.shape[1], marks.shape[1]
    row = jnp.arange(b, dtype=jnp.int32)[:, None]
    # -2 marks the members of R, -1 what is in the list alone.
    marks = marks.at[row, own.ids].set(
        jnp.where(own.inside, -2, -1), mode="promise_in_bounds"
    )
    members = take_rows(near, own.ids)  # [b, K, H]
    real = (members >= 0) & own.inside[:, :, None]
    members = jnp.maximum(members, 0).reshape(b, K * H)
    mark = marks.at[row, members].get(mode="promise_in_bounds")
    common = real & (mark == -2).reshape(real.shape)
    # Strictly more than two thirds, as the authors' code; in whole numbers.
    accepted = 3 * common.sum(axis=2) > 2 * real.sum(axis=2)  # [b, K]
    new = (real & accepted[:, :, None]).reshape(b, K * H) & (mark > -2)
    # Several slots may bring one point: the one of the highest number stays.
    number = jnp.arange(1, K * H + 1, dtype=jnp.int32)[None]
    marks = marks.at[row, jnp.where(new, members, N)].max(number, mode="drop")
    listed = marks.at[row, own.ids].get(mode="promise_in_bounds") != -1
    kept = marks.at[row, members].get(mode="promise_in_bounds") == number
    kept &= new & (mark == 0)
    place = jnp.cumsum(kept, axis=1, dtype=jnp.int32)
    brought = jnp.full((b, extra), -1, jnp.int32)
    brought = brought.at[row, jnp.where(kept, place - 1, extra)].set(
        members, mode="drop"
    )
    # Cleared where it was marked, which is listed or brought, unless slots ran out.
    # The zero is computed from what was read: a write that merely has to come later is
    # not done in place, but on a copy of the whole table.
    zero = jnp.where(listed[0, 0] & (place[0, -1] < 0), 1, 0)
    marks = marks.at[row, own.ids].set(zero, mode="promise_in_bounds")
    marks = marks.at[row, jnp.where(brought >= 0, brought, N)].set(zero, mode="drop")
    return _Expanded(listed, brought, place[:, -1]), marks


@jax.jit
def encode(rows: jax.Array, pool: NeighborLists, members: Members) -> Encoding:
    """Eq. 7: weights exp(-d) of the members; rows sum to one.

    Args:
        rows: `[N, D]` unit rows of the pool.
        pool: their lists, `[N, L]` with L at least K.
        members: their sets.
    """
    K = members.listed.shape[1]
    cosine = jnp.concatenate(
        [pool.scores[:, :K], _extra_cosines(rows, members.extra)], axis=1
    )
    used = jnp.concatenate([members.listed, members.extra >= 0], axis=1)
    weight = jnp.where(used, jnp.exp(-distance(cosine, pool.minimum)), 0)
    total = weight.sum(axis=1, keepdims=True)
    return Encoding(
        jnp.concatenate([pool.ids[:, :K], jnp.maximum(members.extra, 0)], axis=1),
        # A point outside its own list, behind its duplicates, may have no member.
        weight / jnp.where(total == 0, 1, total),
    )


def _extra_cosines(rows: jax.Array, extra: jax.Array) -> jax.Array:
    """Cosines `[N, E]` of points to members from outside their lists."""
    (N, D), E = rows.shape, extra.shape[1]
    if is_wide():
        blocks = divide(N, _WIDE_BYTES // (4 * D * max(1, E)))

        def pairs(i: jax.Array) -> jax.Array:
            others = take_rows(rows, jnp.maximum(blocks.take(extra, i), 0))
            return jnp.sum(blocks.take(rows, i)[:, None] * others, axis=2)

        return map_blocks(pairs, blocks)
    blocks = divide(N, _CPU_BYTES // (4 * D))
    # Points that bring in about as many members share a block: none waits for another.
    order = jnp.argsort((extra >= 0).sum(axis=1))

    def slots(i: jax.Array) -> jax.Array:
        points = blocks.take(order, i)
        own, other = take_rows(rows, points), take_rows(extra, points)

        def slot(e: jax.Array, found: jax.Array) -> jax.Array:
            at = jnp.maximum(lax.dynamic_index_in_dim(other, e, 1, False), 0)
            value = jnp.sum(own * take_rows(rows, at), axis=1)
            return lax.dynamic_update_index_in_dim(found, value, e, 1)

        used = (other >= 0).sum(axis=1, dtype=jnp.int32).max()
        return repeat(used, slot, jnp.zeros((blocks.size, E), jnp.float32))

    return take_rows(map_blocks(slots, blocks), jnp.argsort(order))


def distance(cosine: jax.Array, minimum: jax.Array) -> jax.Array:
    """Squared Euclidean distance `[N, K]` over its largest value in each row."""
    # Rounding may leave the cosine of equal rows a little above one.
    largest = jnp.maximum(1 - minimum[:, None], 0)
    return jnp.maximum(1 - cosine, 0) / jnp.where(largest == 0, 1, largest)


def _block_bytes() -> int:
    return by_form(cpu=_CPU_BYTES, wide=_WIDE_BYTES)
