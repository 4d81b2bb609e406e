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
    pack,
    position,
    sort_key,
    threshold,
)
from dex_jax.neighbors._selection import NeighborLists, joined

# Free places behind a list of k: 2 k, but at least 32. With more of them lists are cut
# less often, but each cut passes over all of them.
_PLACES = (2, 32)
# A cut may leave k entries and a 16th of the free places: a score that exactly k
# entries reach takes more steps of bisection to find.
_SLACK = 16
# Columns in a group, of which `_bound` looks at the best; the first size that fits.
_GROUPS = (32, 16, 8, 4)
# Two products of the same unit rows, in matrices of other shapes, differ by less than
# this at any D up to 4,352, the descriptor of the 17 parts. Products with a single row
# may differ by more there; searches so small do not come here.
_ROUNDING = 2e-6


class Lists(NamedTuple):
    """Lists of R rows while tiles are folded in, P places each, in order of the index.

    Attributes:
        ids: `[P, R]` int32, rising along P but for entries that are empty.
        scores: `[P, R]` float32, -inf where empty.
        used: scalar int32, k to P: places in use, the same number for all rows.
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
    """What the loop of `fold` carries."""

    lists: Lists
    words: jax.Array  # marks of scores not yet taken, [R, C / 32] or [C / 32, R]


class _Picking(NamedTuple):
    """What the loop of `_pick` carries: every row reads its W words from the front."""

    lists: Lists
    left: jax.Array  # [W / 32, R] uint32, a bit for each later word that has marks
    word: jax.Array  # [R] uint32, the current word without the marks taken
    number: jax.Array  # [R] int32, which word that is


# Where entries come from: (lists, row [R], place [R]) -> (ids [R], scores [R]).
_Source = Callable[[Lists, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def empty_lists(rows: int, k: int, *, columns: int, minimum: bool = False) -> Lists:
    """Lists of `k` that are to be made from tiles of so many columns."""
    times, least = _PLACES
    # A row of a tile has no more than `columns` scores to append.
    places = k + min(max(times * k, least), columns)
    # The first k places count as used, so that `used` is at least k from the start.
    return Lists(
        jnp.zeros((places, rows), jnp.int32),
        jnp.full((places, rows), -jnp.inf, jnp.float32),
        jnp.int32(k),
        jnp.full(rows, -jnp.inf, jnp.float32),
        jnp.full(rows, jnp.inf, jnp.float32) if minimum else None,
    )


def fold(lists: Lists, tile: Tile, *, k: int) -> Lists:
    """Folds a tile into lists of `k`, all of whose indices are below the tile's."""
    axis, places = tile.axis, lists.ids.shape[0]
    if lists.minimum is not None:
        # Columns that are not legal repeat others, so they change no minimum.
        least = jnp.minimum(lists.minimum, tile.scores.min(axis=axis))
        lists = lists._replace(minimum=least)
    words = _marks(tile, lists.last)
    # Where a row has more marks than free places, as in a first tile, only scores that
    # may be among the k best of the tile keep theirs.
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
    """The lists `[R, k]`, sorted: best first, ties to the lower index."""
    short = _shorten(lists, k, k)
    best = joined(short.ids[:k].T, short.scores[:k].T, k)
    return NeighborLists(best.ids, best.scores, _lowest(lists))


def _lowest(lists: Lists) -> jax.Array:
    if lists.minimum is None:
        return jnp.full(lists.last.shape, jnp.inf, jnp.float32)
    return lists.minimum


def just_below(scores: jax.Array) -> jax.Array:
    """Each score less the rounding error between two products of the same rows.

    A row that equals the one behind a score then has a cosine above what is returned,
    whatever the shape of the product.
    """
    return scores - jnp.maximum(jnp.abs(scores) * _ROUNDING, _ROUNDING)


def _append(tile: Tile, k: int, state: _Folding) -> _Folding:
    """Appends marked scores until no mark is left or the places are full."""
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

    lists, words = lax.while_loop(full, make_space, state)  # at most one trip
    used = lists.used
    count = jnp.minimum(most_set(words, axis), places - used)
    lists, words = _pick(lists, words, axis, source, at=used, count=count)
    return _Folding(lists._replace(used=used + count), words)


def _marks(tile: Tile, last: jax.Array) -> jax.Array:
    """Bits of the legal scores above `last` `[R]`, packed along the columns.

    Words lie as the scores do, `[R, C / 32]` or `[C / 32, R]`: to transpose them here
    would cost more than all that follows.
    """
    words = pack(tile.scores > jnp.expand_dims(last, tile.axis), tile.axis)
    return words & jnp.expand_dims(pack(tile.legal, 0), 1 - tile.axis)


def _bound(tile: Tile, k: int) -> jax.Array:
    """A bound `[R]` below the `k`-th best legal score of each row; -inf if k is large.

    It is the `k`-th best of the maxima of groups of columns, and a little less: k
    groups have a score at least as good.
    """
    axis, size = tile.axis, tile.scores.shape[tile.axis]
    # With fewer than 4 k groups the bound would lie far below the k-th best score.
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
    # Scores must exceed the bound, and the k-th best may equal it. The next smaller
    # float would not do: that of zero is denormal, and flushed to zero.
    return bound - jnp.maximum(jnp.abs(bound) * 1e-6, 1e-30)


def _shorten(lists: Lists, k: int, most: int) -> Lists:
    """Leaves the best `k` to `most` of each list, in order, and frees other places."""
    # Places from `used` on may hold entries from before the last cut.
    there = jnp.arange(lists.scores.shape[0], dtype=jnp.int32)[:, None] < lists.used
    lowest = jnp.int32(jnp.iinfo(jnp.int32).min)
    keys = jnp.where(there, sort_key(lists.scores), lowest)  # [P, R]
    limit = threshold(keys, k, most, 0)[None]
    stay = keys >= limit

    def highest(stay: jax.Array) -> jax.Array:
        return stay.sum(axis=0, dtype=jnp.int32).max()

    def without_ties(stay: jax.Array) -> jax.Array:
        # Of the entries that equal the limit, those of lowest index fill up to k.
        equal = keys == limit
        free = k - (keys > limit).sum(axis=0, dtype=jnp.int32)
        count = jnp.cumsum(equal, axis=0, dtype=jnp.int32)
        return (stay & ~equal) | (equal & (count <= free[None]))

    stay = lax.cond(highest(stay) > most, without_ties, lambda stay: stay, stay)
    # Empty entries are -inf and must not lower a limit that began above that, as those
    # of `joint_search_tiles` do.
    last = jnp.maximum(lists.last, jnp.where(stay, lists.scores, jnp.inf).min(axis=0))

    def source(
        lists: Lists, row: jax.Array, place: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # Entries move to the front in place: each is read before another lands there.
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
        words: marks along `axis`, `[R, W]` or `[W, R]` uint32.
        axis: of the words.
        source: reads the entry at the place of a mark.
        at: scalar int32, the first place written.
        count: scalar int32, marks taken of a row at most. A row with fewer gets empty
            entries, so that all rows use the same number of places.

    Returns:
        The lists, and the marks that are left.
    """
    R = words.shape[1 - axis]
    row = jnp.arange(R, dtype=jnp.int32)

    def one(t: jax.Array, state: _Picking) -> _Picking:
        state = _next_words(words, axis, row, state)
        bit = lowest_bit(state.word)  # [R], 0 where the row has no mark left
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

    # Which words have marks, as bits again: a row goes from one to the next without
    # a look at the words between.
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
    # The first line of `left` with a bit, found without a loop: there are few lines,
    # one for 1,024 columns.
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
    """The marks not taken: the rest of the current word, and all of later words."""
    W = words.shape[axis]
    index = state.left.T if axis else state.left
    # Unpacks `left`: bools shaped like the words, true where no mark has been taken.
    bit = along(jnp.arange(WORD, dtype=jnp.uint32), axis + 1, 3)
    later = (jnp.expand_dims(index, axis + 1) >> bit) & 1 != 0
    later = later.reshape(*words.shape[:axis], -1, *words.shape[axis + 1 :])
    later = lax.slice_in_dim(later, 0, W, axis=axis)
    number = along(jnp.arange(W, dtype=jnp.int32), axis, 2)
    here = number == jnp.expand_dims(state.number, axis)
    word = jnp.where(here, jnp.expand_dims(state.word, axis), jnp.uint32(0))
    return jnp.where(later, words, word)
