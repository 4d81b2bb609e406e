"""Running lists of neighbours, and how tiles of scores are folded into them.

Hardly anything of a tile can enter lists that have seen many columns already. So scores
are compared with the least entry of their list, one bit each, and what stands above is
picked out, the first of every row at once, then the second, and so on. What has been
picked waits behind the list until its places are full; only then is the list cut down
to about the best K. All of it is passes over arrays with the rows side by side, which a
CPU does with all its threads and vectors, where `top_k` is one thread and dear for each
row. Entries stay in order of their index until the end: of equals the first ones stay.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Bits in a word of marks.
WORD = 32
# Places behind a list of K: this many times K, but not fewer than the second number.
_PLACES = (2, 32)
# One in so many of these places may stay filled when a list is cut down: to part off
# exactly the best K takes more halvings.
_SLACK = 16
# Columns of which only the best is looked at where too many stand above a list.
_GROUPS = (32, 16, 8, 4)


class Neighbors(NamedTuple):
    """Sorted neighbour lists, best first.

    Attributes:
        ids: `[..., K]` int32, row indices into the database.
        scores: `[..., K]` float32, their cosine similarities.
    """

    ids: jax.Array
    scores: jax.Array


class Lists(NamedTuple):
    """Lists of R rows that are being made; up to three times as large as when done.

    Attributes:
        ids: `[P, R]` int32, what was kept when the lists were last cut down, then what
            has been picked since; rising but for entries that are empty.
        scores: `[P, R]` float32, -inf where empty.
        used: scalar int32, how many of the P are in use, from K on.
        last: `[R]` float32, what a score must exceed to enter.
    """

    ids: jax.Array
    scores: jax.Array
    used: jax.Array
    last: jax.Array


def top(scores: jax.Array, k: int) -> Neighbors:
    """The `k` best of each row of scores, ties to the lower index."""
    values, ids = lax.top_k(_one_zero(scores), k)
    # Without barriers a later slice of the result turns top_k into a full sort; one
    # barrier over both is more than the compiler can partition over a mesh.
    return Neighbors(lax.optimization_barrier(ids), lax.optimization_barrier(values))


def no_neighbors(rows: int, k: int) -> Neighbors:
    """Lists `[rows, k]` of nothing."""
    return Neighbors(jnp.zeros((rows, k), jnp.int32), jnp.full((rows, k), -jnp.inf))


def empty_lists(rows: int, k: int, *, columns: int) -> Lists:
    """Lists of `k` that are to be made from tiles of so many columns."""
    times, least = _PLACES
    places = k + min(max(times * k, least), columns)
    return Lists(
        jnp.zeros((places, rows), jnp.int32),
        jnp.full((places, rows), -jnp.inf),
        jnp.int32(k),
        jnp.full(rows, -jnp.inf),
    )


def fold(
    lists: Lists,
    scores: jax.Array,
    *,
    k: int,
    first: int | jax.Array,
    legal: jax.Array | None = None,
    turned: bool = False,
) -> Lists:
    """Folds a tile of scores into the lists of its rows.

    Args:
        lists: of nothing but lower indices than the tile's.
        scores: `[R, C]`; turned `[C, R]`.
        k: entries of a list.
        first: index of the first of the tile's columns (rows, if turned).
        legal: `[C]`, which of them count; all if None.
        turned: the lists belong to the tile's columns.

    Returns:
        The new lists.
    """
    axis, places = int(not turned), lists.ids.shape[0]
    most_kept = k + (places - k) // _SLACK

    def marks(last: jax.Array) -> jax.Array:
        return _marks(scores, last, legal, axis)

    def most(words: jax.Array) -> jax.Array:
        return lax.population_count(words).astype(jnp.int32).sum(axis=axis).max()

    def bounded(words: jax.Array) -> jax.Array:
        return words & marks(_bound(scores, legal, k, axis))

    def full(state: tuple[Lists, jax.Array]) -> jax.Array:
        lists, words = state
        return (lists.used == places) & (most(words) > 0)

    def shorten(state: tuple[Lists, jax.Array]) -> tuple[Lists, jax.Array]:
        lists, words = state
        lists = _shorten(lists, k, most_kept)
        return lists, words & marks(lists.last)

    def step(state: tuple[Lists, jax.Array]) -> tuple[Lists, jax.Array]:
        lists, words = lax.while_loop(full, shorten, state)
        used = lists.used
        count = jnp.minimum(most(words), places - used)

        def put(
            t: jax.Array, row: jax.Array, column: jax.Array, there: jax.Array, to: Lists
        ) -> Lists:
            score = scores.at[(row, column) if axis else (column, row)]
            score = score.get(mode="promise_in_bounds")
            return _put(to, used + t, column + first, score, there)

        lists, words = _pick(words, count, axis, put, lists)
        return lists._replace(used=used + count), words

    words = marks(lists.last)
    words = lax.cond(most(words) > places - k, bounded, lambda words: words, words)
    return lax.while_loop(lambda state: most(state[1]) > 0, step, (lists, words))[0]


def finished(lists: Lists, k: int) -> Neighbors:
    """The lists `[R, k]`, sorted."""
    lists = _shorten(lists, k, k)
    return joined(lists.ids[:k].T, lists.scores[:k].T, k)


def joined(ids: jax.Array, scores: jax.Array, k: int) -> Neighbors:
    """The best `k` of candidates `[R, C]`, of equals those that stand first."""
    # One column more than wanted: to select all would be taken for a sort, and slower.
    best = top(jnp.pad(scores, ((0, 0), (0, 1)), constant_values=-jnp.inf), k)
    return Neighbors(jnp.take_along_axis(ids, best.ids, axis=1), best.scores)


def _marks(
    scores: jax.Array, last: jax.Array, legal: jax.Array | None, axis: int
) -> jax.Array:
    """Bits of the legal scores that are above `last` `[R]`, laid out as the scores.

    Returns words along `axis`, `[R, W]` or `[W, R]`: to turn them here would cost more
    than all the rest.
    """
    words = _bits(scores > jnp.expand_dims(last, axis), axis)
    if legal is not None:
        words &= jnp.expand_dims(_bits(legal, 0), 1 - axis)
    return words


def _bits(flags: jax.Array, axis: int) -> jax.Array:
    """Packs flags along an axis into words of 32, the first in the lowest bit."""
    size = flags.shape[axis]
    even = size - size % WORD
    parts = []
    for start, end, word in ((0, even, WORD), (even, size, size - even)):
        if start == end:
            continue
        part = lax.slice_in_dim(flags, start, end, axis=axis)
        part = part.reshape(*part.shape[:axis], -1, word, *part.shape[axis + 1 :])
        bit = jnp.uint32(1) << jnp.arange(word, dtype=jnp.uint32)
        bit = _along(bit, axis + 1, flags.ndim + 1)
        parts.append(jnp.where(part, bit, 0).sum(axis=axis + 1, dtype=jnp.uint32))
    return jnp.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def _bound(scores: jax.Array, legal: jax.Array | None, k: int, axis: int) -> jax.Array:
    """A little less than the `k`-th best legal score of each row `[R]`, or far less.

    The `k` groups of columns with the best maxima have a score each that is as good as
    the last of these.
    """
    size = scores.shape[axis]
    group = next((g for g in _GROUPS if size >= 4 * k * g), 0)
    if not group:
        return jnp.full(scores.shape[1 - axis], -jnp.inf)
    if legal is not None:
        scores = jnp.where(jnp.expand_dims(legal, 1 - axis), scores, -jnp.inf)
    scores = lax.slice_in_dim(scores, 0, size - size % group, axis=axis)
    shape = scores.shape
    scores = scores.reshape(*shape[:axis], -1, group, *shape[axis + 1 :])
    maxima = scores.max(axis=axis + 1)
    return just_below(_value(_threshold(_key(maxima), k, k, axis)))


def just_below(scores: jax.Array) -> jax.Array:
    """A little less than each score."""
    # Not the next smaller number: below zero that is one which counts as zero.
    return scores - jnp.maximum(jnp.abs(scores) * 1e-6, 1e-30)


def _one_zero(scores: jax.Array) -> jax.Array:
    """Makes -0.0, which equals 0.0 but is sorted behind it, 0.0."""
    # A difference, so that the derivative is that of the score at zero too.
    return scores - jnp.where(scores == 0, lax.stop_gradient(scores), 0)


def _key(scores: jax.Array) -> jax.Array:
    """Whole numbers int32 in the order of the scores; both zeros are one."""
    bits = lax.bitcast_convert_type(_one_zero(scores), jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _value(key: jax.Array) -> jax.Array:
    """The score of a key."""
    return lax.bitcast_convert_type(key ^ ((key >> 31) & 0x7FFFFFFF), jnp.float32)


def _threshold(keys: jax.Array, k: int, most: int, axis: int) -> jax.Array:
    """A number that `k` to `most` keys along an axis reach.

    Where equal keys make them more than `most`, fewer than `k` are above the number.
    """

    def halve(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = state
        middle = high - ((high - low) >> 1)  # in (low, high]
        count = (keys >= jnp.expand_dims(middle, axis)).sum(axis=axis, dtype=jnp.int32)
        low = jnp.where(count >= k, middle, low)
        high = jnp.where(count < k, middle - 1, high)
        return low, jnp.where((count >= k) & (count <= most), middle, high)

    # Halved, so that no difference leaves the range of int32.
    low, high = keys.min(axis=axis), keys.max(axis=axis)
    zero = jnp.zeros_like(low)
    signs = (keys >= 0).sum(axis=axis, dtype=jnp.int32) >= k
    low, high = (
        jnp.where(signs, jnp.maximum(low, zero), low),
        jnp.where(signs, high, jnp.minimum(high, zero - 1)),
    )
    return lax.while_loop(lambda s: jnp.any(s[0] < s[1]), halve, (low, high))[0]


def _shorten(lists: Lists, k: int, most: int) -> Lists:
    """Leaves the best `k` to `most` of each list, in order, and frees other places."""
    there = jnp.arange(lists.scores.shape[0])[:, None] < lists.used
    keys = jnp.where(there, _key(lists.scores), jnp.iinfo(jnp.int32).min)  # [P, R]
    limit = _threshold(keys, k, most, 0)[None]
    stay = keys >= limit

    def highest(stay: jax.Array) -> jax.Array:
        return stay.sum(axis=0, dtype=jnp.int32).max()

    def without_ties(stay: jax.Array) -> jax.Array:
        equal = keys == limit
        free = k - (keys > limit).sum(axis=0, dtype=jnp.int32)
        return (stay & ~equal) | (equal & (jnp.cumsum(equal, axis=0) <= free[None]))

    stay = lax.cond(highest(stay) > most, without_ties, lambda stay: stay, stay)
    # No less than before, which empty places would allow.
    last = jnp.maximum(lists.last, jnp.where(stay, lists.scores, jnp.inf).min(axis=0))

    def put(
        t: jax.Array, row: jax.Array, place: jax.Array, there: jax.Array, to: Lists
    ) -> Lists:
        # Entries move forward, so that none is overwritten before it has moved.
        id_ = to.ids.at[place, row].get(mode="promise_in_bounds")
        score = to.scores.at[place, row].get(mode="promise_in_bounds")
        return _put(to, t, id_, score, there)

    used = highest(stay)
    lists, _ = _pick(_bits(stay, 0), used, 0, put, lists)
    return lists._replace(used=used, last=last)


def _put(
    lists: Lists, place: jax.Array, ids: jax.Array, scores: jax.Array, there: jax.Array
) -> Lists:
    """Writes one place of every list."""
    scores = jnp.where(there, scores, -jnp.inf)
    return lists._replace(
        ids=lax.dynamic_update_index_in_dim(lists.ids, ids, place, 0),
        scores=lax.dynamic_update_index_in_dim(lists.scores, scores, place, 0),
    )


def _pick(
    words: jax.Array,
    count: jax.Array,
    axis: int,
    put: Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Lists], Lists],
    lists: Lists,
) -> tuple[Lists, jax.Array]:
    """Takes the first mark of every row, then the second, up to `count` of them.

    Args:
        words: marks along `axis`, `[R, W]` or `[W, R]`.
        count: marks taken of a row at most.
        axis: of the words.
        put: `(t, row [R], place [R], there [R], lists) -> lists`: takes the places of
            the marks number t, and which rows have one.
        lists: handed on by `put`.

    Returns:
        The lists, and the marks that are left.
    """
    R, W = words.shape[1 - axis], words.shape[axis]
    row = jnp.arange(R)
    lines = jnp.arange(-(-W // WORD))[:, None]

    def read(place: jax.Array) -> jax.Array:
        there = words.at[(row, place) if axis else (place, row)]
        return there.get(mode="promise_in_bounds")

    # Which words are not zero, again in bits: `[W / 32, R]`.
    index = _bits(words != 0, axis)
    index = index.T if axis else index

    def one(t: jax.Array, state):
        lists, index, word, number = state
        # Where a word is used up, the next one that is not zero.
        done = word == 0
        line, rest = jnp.zeros(R, jnp.int32), jnp.zeros(R, jnp.uint32)
        for i in reversed(range(index.shape[0])):
            line = jnp.where(index[i] != 0, i, line)
            rest = jnp.where(index[i] != 0, index[i], rest)
        lowest = _lowest(rest)
        next_ = line * WORD + _position(lowest)
        number = jnp.where(done & (rest != 0), next_, number)
        word = jnp.where(done & (rest != 0), read(number), word)
        index = jnp.where(
            done[None] & (lines == line[None]), index ^ lowest[None], index
        )
        lowest = _lowest(word)
        place = number * WORD + _position(lowest)
        return put(t, row, place, lowest != 0, lists), index, word ^ lowest, number

    state = lists, index, jnp.zeros(R, jnp.uint32), jnp.zeros(R, jnp.int32)
    lists, index, word, number = lax.fori_loop(0, count, one, state)
    # What is left: the rest of the word at hand, and words that the index still has.
    index = index.T if axis else index
    bit = jnp.arange(WORD, dtype=jnp.uint32)
    left = (jnp.expand_dims(index, axis + 1) >> _along(bit, axis + 1, 3)) & 1 != 0
    left = left.reshape(*words.shape[:axis], -1, *words.shape[axis + 1 :])
    left = lax.slice_in_dim(left, 0, W, axis=axis)
    here = _along(jnp.arange(W), axis, 2) == jnp.expand_dims(number, axis)
    word = jnp.where(here, jnp.expand_dims(word, axis), 0)
    return lists, jnp.where(left, words, word)


def _along(values: jax.Array, axis: int, rank: int) -> jax.Array:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def _lowest(word: jax.Array) -> jax.Array:
    """The lowest bit that is set; 0 if none is."""
    return word & (~word + 1)


def _position(bit: jax.Array) -> jax.Array:
    """The number of a bit; 0 if there is none."""
    count = lax.population_count(bit - 1).astype(jnp.int32)
    return jnp.where(bit == 0, 0, count)
