"""k-reciprocal sets and their sparse encodings (section 3.2, eq. 7 and 8).

The pool is the queries followed by the gallery, `N = Q + G` points; a point stands in
its own list. A set is a row of fixed size: a flag for each entry of the point's
neighbour list, and a few slots for members that eq. 8 adds from outside the list.
"""

import functools
from typing import NamedTuple, NoReturn

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

# Bytes of a block's largest array, in either form.
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
        most: scalar int32, extra slots that the row with the most of them needs.
    """

    listed: jax.Array
    extra: jax.Array
    most: jax.Array


@jax.custom_jvp
def without_derivative(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """Unit rows as they are, with an error where a derivative in them is taken."""
    return pair


@without_derivative.defjvp
def _refuse(primals: object, tangents: object) -> NoReturn:
    raise ValueError(
        "query, gallery: k_reciprocal cannot be differentiated in the embeddings, as "
        "its sets of neighbours have no derivative; lambda_ can. Take "
        "cosine_similarity, diffusion or a query expansion, or pass "
        "jax.lax.stop_gradient of the embeddings"
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
    blocks = divide(N, _block_bytes() // (4 * K * K))

    def ranks(i: jax.Array) -> jax.Array:
        point = blocks.start(i) + jnp.arange(blocks.size, dtype=jnp.int32)
        lists = take_rows(ids, blocks.take(ids, i))  # [b, K, K], of the neighbours
        rank = jnp.arange(K, dtype=jnp.int32) - K
        # A point stands in a list once at most: with K added the sum is its rank there,
        # or K where it is absent.
        here = jnp.where(lists == point[:, None, None], rank[None, None], 0)
        return K + jnp.sum(here, axis=2, dtype=jnp.int32)  # [b, K]

    rank = map_blocks(ranks, blocks)
    if reach is None:
        near = rank[:, : half + 1] <= half
        return rank < K, jnp.where(near, ids[:, : half + 1], -1)
    # With masked lists each must list the other within reach: the larger rank counts.
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
        reach: masks what lies beyond; None where both lists count to their end. A
            point beyond it is no neighbour, but eq. 8 may still add it as a member; it
            is then flagged in its entry and takes no extra slot.
        half: rank up to which the half lists reach.
        extra: slots for members from outside the list. Where `most` is more, the sets
            are wrong, and `most` is a lower bound of what is needed.
    """
    N, K = ids.shape
    full, near = reciprocal(ids, half, reach)  # [N, K] bool, [N, half + 1] ids
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
    """The sets R* of a block of points."""

    listed: jax.Array  # [b, K] bool, entries of the list that are members
    brought: jax.Array  # [b, extra] int32, other members, -1 in unused slots
    needed: jax.Array  # [b] int32, other members, with those that did not fit


def _expand_block(
    own: _Own, near: jax.Array, marks: jax.Array, extra: int
) -> tuple[_Expanded, jax.Array]:
    """Eq. 8 for a block of points.

    Args:
        own: their lists `[b, K]`.
        near: `[N, H]` half sets of all points, -1 where not reciprocal.
        marks: `[b, N]` int32 zeros, scratch: what each point of the pool is to a point
            of the block. A table answers "is it in R?" for K x H members at a time.
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
    members = take_rows(near, own.ids)  # [b, K, H], half sets of the neighbours
    real = (members >= 0) & own.inside[:, :, None]
    members = jnp.maximum(members, 0).reshape(b, K * H)
    mark = marks.at[row, members].get(mode="promise_in_bounds")
    common = real & (mark == -2).reshape(real.shape)
    # Strictly more than two thirds, as in the authors' code; exact, in integers.
    accepted = 3 * common.sum(axis=2) > 2 * real.sum(axis=2)  # [b, K]
    new = (real & accepted[:, :, None]).reshape(b, K * H) & (mark > -2)
    # Several half sets may add one point: the slot of the highest number keeps it. A
    # list entry (-1) that is added is overwritten by that number, which marks it too.
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
    # Clear all that was marked: the list and what was brought. Where slots ran out some
    # marks stay, but then the result is thrown away. The zero is computed from what was
    # read, so that the write depends on the reads: merely ordered after them, XLA would
    # write into a copy of the whole table.
    zero = jnp.where(listed[0, 0] & (place[0, -1] < 0), 1, 0)
    marks = marks.at[row, own.ids].set(zero, mode="promise_in_bounds")
    marks = marks.at[row, jnp.where(brought >= 0, brought, N)].set(zero, mode="drop")
    return _Expanded(listed, brought, place[:, -1]), marks


@jax.jit
def encode(rows: jax.Array, pool: NeighborLists, members: Members) -> Encoding:
    """Eq. 7: weights exp(-d) of the members, divided so that each row sums to one.

    Args:
        rows: `[N, D]` unit rows of the pool.
        pool: their lists, `[N, L]` with L at least K, and smallest cosines.
        members: their sets R*.

    Returns:
        Sparse rows `[N, K + E]`.
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
        # A point that its duplicates push out of its own list may have no member.
        weight / jnp.where(total == 0, 1, total),
    )


def _extra_cosines(rows: jax.Array, extra: jax.Array) -> jax.Array:
    """Cosines `[N, E]` of points to members from outside their lists."""
    (N, D), E = rows.shape, extra.shape[1]
    # Wide: all E slots of some points in one gather [b, E, D], most of them empty. A
    # CPU goes slot by slot, and stops where no point of the block has more members.
    if is_wide():
        blocks = divide(N, _WIDE_BYTES // (4 * D * max(1, E)))

        def pairs(i: jax.Array) -> jax.Array:
            others = take_rows(rows, jnp.maximum(blocks.take(extra, i), 0))
            return jnp.sum(blocks.take(rows, i)[:, None] * others, axis=2)

        return map_blocks(pairs, blocks)
    blocks = divide(N, _CPU_BYTES // (4 * D))
    # Points with about as many members share a block: its loop runs to the most of it.
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
    """Squared Euclidean distance over its largest value, 0 to 1 (the d of eq. 7).

    That of unit rows is `2 - 2 cos`, of which the factor 2 cancels.

    Args:
        cosine: `[N, K]`.
        minimum: `[N]`, the smallest cosine of each row over the pool.
    """
    # Rounding may leave the cosine of equal rows a little above one.
    largest = jnp.maximum(1 - minimum[:, None], 0)
    return jnp.maximum(1 - cosine, 0) / jnp.where(largest == 0, 1, largest)


def _block_bytes() -> int:
    return by_form(cpu=_CPU_BYTES, wide=_WIDE_BYTES)
