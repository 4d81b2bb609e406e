"""Rows that are equal bit by bit, and how lists treat them.

The product of one pair of vectors depends, in its last bit, on the shape of the tile
that it stands in. So equal rows could get different cosines, and a duplicate of higher
index could stand in front. Only the first of equal rows therefore takes part in a
search; the others are given its cosines when the lists are done.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax.neighbors._blocks import repeat, take_rows
from dex_jax.neighbors._lists import Neighbors

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
    """Four words uint32 `[N]` each that equal rows `[N, D]` have in common."""
    D = rows.shape[1]
    bits = lax.bitcast_convert_type(jnp.where(rows == 0, 0, rows), jnp.uint32)
    bits ^= bits >> 15  # many numbers end in zeros, which products keep

    def add(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
        return [x + y for x, y in zip(a, b, strict=True)]

    words = []
    for pair in range(_WORDS // 2):  # two words a pass are the fastest on a CPU
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
        own = ~index.astype(jnp.uint32)  # words of zeros are those of a row of zeros
        prints = tuple(jnp.where(valid, words, own) for words in prints)
    # Equal rows side by side, in order of their index. Two words are enough to sort by:
    # that they agree where the others do not would at worst leave a duplicate unfound.
    *words, row = lax.sort((*prints[:2], index), num_keys=3)
    words += [take_rows(w, row) for w in prints[2:]]
    opens = functools.reduce(jnp.logical_or, [w[1:] != w[:-1] for w in words])
    opens = jnp.concatenate([jnp.ones(1, bool), opens])
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
    ids: jax.Array  # [k, R] int32, what has been written
    scores: jax.Array  # [k, R]
    heads: jax.Array  # [C, R] int32, the next of the equal rows of each candidate
    left: jax.Array  # [C, R], its score; -inf when no row is left


def spread(lists: Neighbors, duplicates: Duplicates, k: int) -> Neighbors:
    """The best `k` where candidates `[R, C]` stand for all rows that equal them.

    A merge of C rising sequences: k times the best score, and of equal scores the
    lowest index. The best k need no more candidates than k: each is at least one row.
    """

    def merged(lists: Neighbors) -> Neighbors:
        return _merged(lists, duplicates.next, k)

    def sliced(lists: Neighbors) -> Neighbors:
        return Neighbors(lists.ids[:, :k], lists.scores[:, :k])

    return lax.cond(duplicates.some, merged, sliced, lists)


def _merged(lists: Neighbors, following: jax.Array, k: int) -> Neighbors:
    R = lists.ids.shape[0]
    beyond = jnp.int32(jnp.iinfo(jnp.int32).max)

    def step(t: jax.Array, state: _Spreading) -> _Spreading:
        best = state.left.max(axis=0)  # [R]
        leads = (state.left == best[None]) & (best[None] > -jnp.inf)
        head = jnp.where(leads, state.heads, beyond).min(axis=0)
        picked = leads & (state.heads == head[None])
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
    """Odd numbers uint32 `[size]` that look random, another sequence each `number`."""
    key = np.arange(size, dtype=np.uint32) * np.uint32(0x85EBCA6B)
    key += np.uint32((number + 1) * 0x9E3779B9 % 2**32)
    key = (key ^ (key >> 16)) * np.uint32(0x7FEB352D)
    key = (key ^ (key >> 15)) * np.uint32(0x846CA68B)
    return (key ^ (key >> 16)) | np.uint32(1)
