"""Rows that are equal bit by bit, and how lists treat them.

The last bit of a pair's cosine depends on the shape of the matrix product that computed
it, so equal rows could get different cosines, and the one of higher index could stand
in front. Only the first of equal rows therefore takes part in a search; the others are
given its cosines when the lists are done.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax.neighbors._blocks import repeat, take_rows
from dex_jax.neighbors._selection import Neighbors

# Words of a fingerprint. Of N different rows two have one fingerprint of 128 bits with
# a probability of about N^2 / 2^129: 1e-25 for a million.
_WORDS = 4


class Duplicates(NamedTuple):
    """Which of N rows are equal.

    Attributes:
        first: `[N]` int32, the lowest index of an equal row; its own where none is.
        next: `[N]` int32, the next higher index of an equal row, or -1.
        some: scalar bool, whether any two rows are equal.
    """

    first: jax.Array
    next: jax.Array
    some: jax.Array

    @property
    def leads(self) -> jax.Array:
        """`[N]` bool, which rows no earlier one equals."""
        return self.first == jnp.arange(self.first.shape[0], dtype=jnp.int32)

    def before(self, rows: int) -> "Duplicates":
        """The same of the first rows alone."""
        following = self.next[:rows]
        following = jnp.where(following < rows, following, -1)
        return Duplicates(self.first[:rows], following, self.some)


def fingerprints(rows: jax.Array) -> tuple[jax.Array, ...]:
    """Four words uint32 `[N]` each, equal where rows `[N, D]` float32 are equal."""
    D = rows.shape[1]
    # -0.0 and 0.0 give the same products, so they count as equal here.
    bits = lax.bitcast_convert_type(jnp.where(rows == 0, 0, rows), jnp.uint32)
    # Where a float's low bits are zeros, as of rounded numbers, so are those of the
    # products below: high bits are mixed in first.
    bits ^= bits >> 15

    def add(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(a, b, strict=True)]

    words = []
    # A word is the sum over the columns of bits mixed with random odd numbers, modulo
    # 2^32. Two words in one pass over the rows are the fastest on a CPU.
    for pair in range(_WORDS // 2):
        mixed = bits * _keys(D, 2 * pair)[None]
        mixed ^= mixed >> 15
        both = [mixed, mixed * _keys(D, 2 * pair + 1)[None]]
        words += lax.reduce(both, [np.uint32(0)] * 2, add, (1,))
    return tuple(words)


def find_duplicates(
    prints: tuple[jax.Array, ...], valid: jax.Array | None = None
) -> Duplicates:
    """Finds rows of equal fingerprints; rows that are not `valid` equal no other."""
    N = prints[0].shape[0]
    index = jnp.arange(N, dtype=jnp.int32)
    if valid is not None:
        # Rows that are not valid get a print each of their own: ~index, since the words
        # of index 0 would be those of a row of zeros.
        own = ~index.astype(jnp.uint32)
        prints = tuple(jnp.where(valid, words, own) for words in prints)
    # Equal rows stand side by side, in order of their index. Two words are enough to
    # sort by: a different row that has both could at worst stand between two equal ones
    # and leave them unfound, since all four words are compared.
    *words, row = lax.sort((*prints[:2], index), num_keys=3)
    words += [take_rows(w, row) for w in prints[2:]]
    opens = functools.reduce(jnp.logical_or, [w[1:] != w[:-1] for w in words])
    opens = jnp.concatenate([jnp.ones(1, bool), opens])  # [N], first of equal rows
    leader = row[lax.cummax(jnp.where(opens, index, 0))]
    closes = jnp.concatenate([opens[1:], jnp.ones(1, bool)])
    following = jnp.where(closes, -1, jnp.roll(row, -1))
    empty = jnp.zeros(N, jnp.int32)
    return Duplicates(
        first=empty.at[row].set(leader),
        next=empty.at[row].set(following),
        some=~jnp.all(opens),
    )


class _Spreading(NamedTuple):
    """What the merge of `spread` carries: lists so far, candidates not yet used up."""

    ids: jax.Array  # [k, R] int32, filled from the front
    scores: jax.Array  # [k, R] float32
    heads: jax.Array  # [C, R] int32, for each candidate the next of its equal rows
    left: jax.Array  # [C, R] float32, its score; -inf when no row is left


def spread(lists: Neighbors, duplicates: Duplicates, k: int) -> Neighbors:
    """The best `k` where candidates `[R, C]` stand for all rows that equal them.

    Each candidate is a sequence of rows of equal score and rising index. The C
    sequences are merged in k steps, each of which takes the best score, and of equal
    scores the lowest index. Lists of k candidates suffice: each is at least one row.
    """

    def merged(lists: Neighbors) -> Neighbors:
        return _merged(lists, duplicates.next, k)

    def sliced(lists: Neighbors) -> Neighbors:
        return Neighbors(lists.ids[:, :k], lists.scores[:, :k])

    # Most sets have no duplicates, and skip the k passes over all candidates.
    return lax.cond(duplicates.some, merged, sliced, lists)


def _merged(lists: Neighbors, following: jax.Array, k: int) -> Neighbors:
    R = lists.ids.shape[0]
    beyond = jnp.int32(jnp.iinfo(jnp.int32).max)

    def step(t: jax.Array, state: _Spreading) -> _Spreading:
        best = state.left.max(axis=0)  # [R]
        leads = (state.left == best[None]) & (best[None] > -jnp.inf)
        head = jnp.where(leads, state.heads, beyond).min(axis=0)
        picked = leads & (state.heads == head[None])  # [C, R], one of each column
        # No candidate is left: the entry is index 0 with the score -inf.
        head = jnp.where(head == beyond, 0, head)
        later = following.at[head].get(mode="promise_in_bounds")[None]
        return _Spreading(
            lax.dynamic_update_index_in_dim(state.ids, head, t, 0),
            lax.dynamic_update_index_in_dim(state.scores, best, t, 0),
            jnp.where(picked, later, state.heads),
            jnp.where(picked & (later < 0), -jnp.inf, state.left),
        )

    empty = jnp.full((k, R), -jnp.inf, jnp.float32)
    none = jnp.zeros((k, R), jnp.int32)
    state = _Spreading(none, empty, lists.ids.T, lists.scores.T)
    state = repeat(k, step, state)
    return Neighbors(state.ids.T, state.scores.T)


def _keys(size: int, number: int) -> np.ndarray:
    """Odd random numbers uint32 `[size]`, another sequence for each `number`."""
    # The integer hash lowbias32 of a counter. Odd, since an even factor would lose the
    # highest bit of what it multiplies.
    key = np.arange(size, dtype=np.uint32) * np.uint32(0x85EBCA6B)
    key += np.uint32((number + 1) * 0x9E3779B9 % 2**32)
    key = (key ^ (key >> 16)) * np.uint32(0x7FEB352D)
    key = (key ^ (key >> 15)) * np.uint32(0x846CA68B)
    return (key ^ (key >> 16)) | np.uint32(1)
