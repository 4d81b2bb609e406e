"""Neighbour lists that grow while tiles of scores are folded into them.

After the first tiles few scores beat a list's k-th best. Those are marked in a bit mask
(`_bits`), then taken out of the tile: the first mark of every row at once, then the
second, and so on. They are appended behind the k entries of the list. When these places
are full the list is cut back to about its best k, by bisection for a score that k
entries reach. Every step is a pass over arrays with the rows side by side, which a CPU
runs with all its threads and vectors; `lax.top_k` uses one thread there and looks at
every score.

Entries stay in order of their index until the end, so of equal scores those of lower
index stay.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._bits import (
    WORD,
    along,
    from_key,
    lowest_bit,
    most_set,
    one_zero,
    pack,
    position,
    sort_key,
    threshold,
)

# Places behind a list of k: this many times k, but not fewer than the second number.
_PLACES = (2, 32)
# A cut may leave one in so many of these places filled: to cut back to exactly k takes
# more halvings.
_SLACK = 16
# Columns of which only the best is looked at where too many beat a list.
_GROUPS = (32, 16, 8, 4)
# Products of equal rows differ by rounding: less than this at any D up to 4,352.
_ROUNDING = 2e-6


class Neighbors(NamedTuple):
    """Sorted neighbour lists, best first.

    Attributes:
        ids: `[..., K]` int32, row indices into the database.
        scores: `[..., K]` float32, larger is better: cosines, or a chain's scores.
    """

    ids: jax.Array
    scores: jax.Array


class NeighborLists(NamedTuple):
    """Neighbour lists of a set, and what its rows are farthest from.

    Attributes:
        ids: `[N, K]` int32, best first.
        scores: `[N, K]` float32, cosines.
        minimum: `[N]` float32, the smallest cosine of each row over all rows; infinity
            where it was not asked for.
    """

    ids: jax.Array
    scores: jax.Array
    minimum: jax.Array

    def first(self, k: int) -> Neighbors:
        """The first `k` entries of each list."""
        return Neighbors(self.ids[:, :k], self.scores[:, :k])


class Lists(NamedTuple):
    """Lists of R rows while tiles are folded in, up to three times their final size.

    Attributes:
        ids: `[P, R]` int32, rising along P but for entries that are empty.
        scores: `[P, R]` float32, -inf where empty.
        used: scalar int32, how many of the P places are in use, from k on.
        last: `[R]` float32, what a score must exceed to enter.
        minimum: `[R]` float32, the smallest score seen; None where nobody asks for it.
    """

    ids: jax.Array
    scores: jax.Array
    used: jax.Array
    last: jax.Array
    minimum: jax.Array | None


class Tile(NamedTuple):
    """Scores of the rows of some lists with columns that no tile before had.

    Attributes:
        scores: `[R, C]`, or `[C, R]` where `axis` is 0.
        first: scalar int32, the index of the first column.
        legal: `[C]` bool, which columns may enter lists.
        axis: along which the columns lie.
    """

    scores: jax.Array
    first: jax.Array
    legal: jax.Array
    axis: int


class _Folding(NamedTuple):
    lists: Lists
    words: jax.Array  # marks of scores not yet taken, [R, C / 32] or [C / 32, R]


class _Picking(NamedTuple):
    lists: Lists
    left: jax.Array  # [W / 32, R] uint32, which words still have marks
    word: jax.Array  # [R] uint32, what is left of the word at hand
    number: jax.Array  # [R] int32, which word that is


# Where entries come from: (lists, row [R], place [R]) -> (ids [R], scores [R]).
_Source = Callable[[Lists, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def top(scores: jax.Array, k: int) -> Neighbors:
    """The `k` best of each row of scores, ties to the lower index."""
    values, ids = lax.top_k(one_zero(scores), k)
    # Without barriers a later slice of the result turns top_k into a full sort; one
    # barrier over both is more than the compiler can partition over a mesh.
    return Neighbors(lax.optimization_barrier(ids), lax.optimization_barrier(values))


def no_neighbors(rows: int, k: int) -> Neighbors:
    """Lists `[rows, k]` of nothing."""
    empty = jnp.full((rows, k), -jnp.inf, jnp.float32)
    return Neighbors(jnp.zeros((rows, k), jnp.int32), empty)


def no_lists(rows: int, k: int) -> NeighborLists:
    """Lists `[rows, k]` of nothing, and minima of nothing."""
    return NeighborLists(*no_neighbors(rows, k), jnp.full(rows, jnp.inf, jnp.float32))


def empty_lists(rows: int, k: int, *, columns: int, minimum: bool = False) -> Lists:
    """Lists of `k` that are to be made from tiles of so many columns."""
    times, least = _PLACES
    places = k + min(max(times * k, least), columns)
    return Lists(
        jnp.zeros((places, rows), jnp.int32),
        jnp.full((places, rows), -jnp.inf, jnp.float32),
        jnp.int32(k),
        jnp.full(rows, -jnp.inf, jnp.float32),
        jnp.full(rows, jnp.inf, jnp.float32) if minimum else None,
    )


def fold(lists: Lists, tile: Tile, *, k: int) -> Lists:
    """Folds a tile of scores into lists of `k`, which hold lower indices alone."""
    axis, places = tile.axis, lists.ids.shape[0]
    if lists.minimum is not None:
        # Columns that are not legal equal others, so they change no minimum.
        least = jnp.minimum(lists.minimum, tile.scores.min(axis=axis))
        lists = lists._replace(minimum=least)
    words = _marks(tile, lists.last)
    words = lax.cond(
        most_set(words, axis) > places - k,
        lambda words: words & _marks(tile, _bound(tile, k)),
        lambda words: words,
        words,
    )
    return lax.while_loop(
        lambda state: most_set(state.words, axis) > 0,
        functools.partial(_append, tile, k),
        _Folding(lists, words),
    ).lists


def finished(lists: Lists, k: int) -> NeighborLists:
    """The lists `[R, k]`, sorted."""
    short = _shorten(lists, k, k)
    best = joined(short.ids[:k].T, short.scores[:k].T, k)
    return NeighborLists(best.ids, best.scores, _lowest(lists))


def _lowest(lists: Lists) -> jax.Array:
    if lists.minimum is None:
        return jnp.full(lists.last.shape, jnp.inf, jnp.float32)
    return lists.minimum


def joined(ids: jax.Array, scores: jax.Array, k: int) -> Neighbors:
    """The best `k` of candidates `[R, C]`, of equals those that stand first."""
    # One column more than wanted: to select all would be taken for a sort, and slower.
    best = top(jnp.pad(scores, ((0, 0), (0, 1)), constant_values=-jnp.inf), k)
    return Neighbors(jnp.take_along_axis(ids, best.ids, axis=1), best.scores)


def just_below(scores: jax.Array) -> jax.Array:
    """So much less than each score that a product of an equal row is above it."""
    return scores - jnp.maximum(jnp.abs(scores) * _ROUNDING, _ROUNDING)


def _append(tile: Tile, k: int, state: _Folding) -> _Folding:
    """Takes marked scores until none is left or the places are full."""
    axis, places = tile.axis, state.lists.ids.shape[0]
    most_kept = k + (places - k) // _SLACK

    def full(state: _Folding) -> jax.Array:
        return (state.lists.used == places) & (most_set(state.words, axis) > 0)

    def make_space(state: _Folding) -> _Folding:
        lists = _shorten(state.lists, k, most_kept)
        return _Folding(lists, state.words & _marks(tile, lists.last))

    def source(
        lists: Lists, row: jax.Array, column: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del lists
        score = tile.scores.at[(row, column) if axis else (column, row)]
        return column + tile.first, score.get(mode="promise_in_bounds")

    lists, words = lax.while_loop(full, make_space, state)
    used = lists.used
    count = jnp.minimum(most_set(words, axis), places - used)
    lists, words = _pick(lists, words, axis, source, at=used, count=count)
    return _Folding(lists._replace(used=used + count), words)


def _marks(tile: Tile, last: jax.Array) -> jax.Array:
    """Bits of the legal scores above `last` `[R]`, packed along the columns.

    The layout is that of the scores: to transpose it here would cost more than all that
    follows.
    """
    words = pack(tile.scores > jnp.expand_dims(last, tile.axis), tile.axis)
    return words & jnp.expand_dims(pack(tile.legal, 0), 1 - tile.axis)


def _bound(tile: Tile, k: int) -> jax.Array:
    """A little less than the `k`-th best legal score of each row `[R]`, or far less.

    Each of the `k` groups of columns with the best maxima has a score at least as good
    as the worst of these maxima.
    """
    axis, size = tile.axis, tile.scores.shape[tile.axis]
    group = next((g for g in _GROUPS if size >= 4 * k * g), 0)
    if not group:
        return jnp.full(tile.scores.shape[1 - axis], -jnp.inf, jnp.float32)
    legal = jnp.expand_dims(tile.legal, 1 - axis)
    scores = jnp.where(legal, tile.scores, -jnp.inf)
    scores = lax.slice_in_dim(scores, 0, size - size % group, axis=axis)
    shape = scores.shape
    scores = scores.reshape(*shape[:axis], -1, group, *shape[axis + 1 :])
    maxima = sort_key(scores.max(axis=axis + 1))
    bound = from_key(threshold(maxima, k, k, axis))
    # Not the next smaller number: below zero that is one which counts as zero.
    return bound - jnp.maximum(jnp.abs(bound) * 1e-6, 1e-30)


def _shorten(lists: Lists, k: int, most: int) -> Lists:
    """Leaves the best `k` to `most` of each list, in order, and frees other places."""
    there = jnp.arange(lists.scores.shape[0], dtype=jnp.int32)[:, None] < lists.used
    lowest = jnp.int32(jnp.iinfo(jnp.int32).min)
    keys = jnp.where(there, sort_key(lists.scores), lowest)  # [P, R]
    limit = threshold(keys, k, most, 0)[None]
    stay = keys >= limit

    def highest(stay: jax.Array) -> jax.Array:
        return stay.sum(axis=0, dtype=jnp.int32).max()

    def without_ties(stay: jax.Array) -> jax.Array:
        equal = keys == limit
        free = k - (keys > limit).sum(axis=0, dtype=jnp.int32)
        count = jnp.cumsum(equal, axis=0, dtype=jnp.int32)
        return (stay & ~equal) | (equal & (count <= free[None]))

    stay = lax.cond(highest(stay) > most, without_ties, lambda stay: stay, stay)
    # No less than before, which empty places would allow.
    last = jnp.maximum(lists.last, jnp.where(stay, lists.scores, jnp.inf).min(axis=0))

    def source(
        lists: Lists, row: jax.Array, place: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # Entries move forward, so none is overwritten before it has moved.
        return (
            lists.ids.at[place, row].get(mode="promise_in_bounds"),
            lists.scores.at[place, row].get(mode="promise_in_bounds"),
        )

    used = highest(stay)
    lists, _ = _pick(lists, pack(stay, 0), 0, source, at=jnp.int32(0), count=used)
    return lists._replace(used=used, last=last)


def _pick(
    lists: Lists,
    words: jax.Array,
    axis: int,
    source: _Source,
    *,
    at: jax.Array,
    count: jax.Array,
) -> tuple[Lists, jax.Array]:
    """Takes the first mark of every row, then the second, up to `count` of them.

    Args:
        lists: what is taken is written into their places from `at` on.
        words: marks along `axis`, `[R, W]` or `[W, R]`.
        axis: of the words.
        source: reads the entry at the place of a mark.
        at: scalar int32, the first place written.
        count: scalar int32, marks taken of a row at most.

    Returns:
        The lists, and the marks that are left.
    """
    R = words.shape[1 - axis]
    row = jnp.arange(R, dtype=jnp.int32)

    def one(t: jax.Array, state: _Picking) -> _Picking:
        state = _next_words(words, axis, row, state)
        bit = lowest_bit(state.word)
        place = state.number * WORD + position(bit)
        ids, scores = source(state.lists, row, place)
        scores = jnp.where(bit != 0, scores, -jnp.inf)
        lists = state.lists._replace(
            ids=lax.dynamic_update_index_in_dim(state.lists.ids, ids, at + t, 0),
            scores=lax.dynamic_update_index_in_dim(
                state.lists.scores, scores, at + t, 0
            ),
        )
        return state._replace(lists=lists, word=state.word ^ bit)

    # Which words have marks, again as bits.
    index = pack(words != 0, axis)
    index = index.T if axis else index
    zero = jnp.zeros(R, jnp.uint32)
    state = _Picking(lists, index, zero, zero.astype(jnp.int32))
    state = lax.fori_loop(jnp.int32(0), count, one, state)
    return state.lists, _left(words, axis, state)


def _next_words(
    words: jax.Array, axis: int, row: jax.Array, state: _Picking
) -> _Picking:
    """Where a row's word is used up, goes on to its next one that has marks."""
    done = state.word == 0
    line, rest = jnp.zeros_like(state.number), jnp.zeros_like(state.word)
    for i in reversed(range(state.left.shape[0])):
        line = jnp.where(state.left[i] != 0, i, line)
        rest = jnp.where(state.left[i] != 0, state.left[i], rest)
    bit = lowest_bit(rest)
    more = done & (rest != 0)
    number = jnp.where(more, line * WORD + position(bit), state.number)
    there = words.at[(row, number) if axis else (number, row)]
    word = jnp.where(more, there.get(mode="promise_in_bounds"), state.word)
    lines = jnp.arange(state.left.shape[0], dtype=jnp.int32)[:, None]
    taken = done[None] & (lines == line[None])
    left = jnp.where(taken, state.left ^ bit[None], state.left)
    return _Picking(state.lists, left, word, number)


def _left(words: jax.Array, axis: int, state: _Picking) -> jax.Array:
    """The marks not taken: the rest of the word at hand, and the words after it."""
    W = words.shape[axis]
    index = state.left.T if axis else state.left
    bit = along(jnp.arange(WORD, dtype=jnp.uint32), axis + 1, 3)
    later = (jnp.expand_dims(index, axis + 1) >> bit) & 1 != 0
    later = later.reshape(*words.shape[:axis], -1, *words.shape[axis + 1 :])
    later = lax.slice_in_dim(later, 0, W, axis=axis)
    number = along(jnp.arange(W, dtype=jnp.int32), axis, 2)
    here = number == jnp.expand_dims(state.number, axis)
    word = jnp.where(here, jnp.expand_dims(state.word, axis), jnp.uint32(0))
    return jnp.where(later, words, word)
