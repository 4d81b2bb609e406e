"""Flags packed into words of 32 bits, and thresholds found by bisection on integers.

`_lists` compares scores with the last score of their list and marks the higher ones
here, one bit each: 32 times less to look through than the scores themselves.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Bits in a word.
WORD = 32
# All bits but the sign. Read as int32, the bits of floats above zero rise with the
# float; those of floats below zero fall, until all but the sign are flipped.
_SIGNED = 0x7FFFFFFF


def pack(flags: jax.Array, axis: int) -> jax.Array:
    """Packs flags along an axis into words of 32, the first in the lowest bit."""
    size = flags.shape[axis]
    even = size - size % WORD
    # Whole words, then one narrower word of what is left: no copy to pad the flags.
    parts = []
    for start, end, width in ((0, even, WORD), (even, size, size - even)):
        if start == end:
            continue
        part = lax.slice_in_dim(flags, start, end, axis=axis)
        part = part.reshape(*part.shape[:axis], -1, width, *part.shape[axis + 1 :])
        bit = jnp.uint32(1) << jnp.arange(width, dtype=jnp.uint32)
        bit = along(bit, axis + 1, flags.ndim + 1)
        words = jnp.where(part, bit, jnp.uint32(0))
        parts.append(words.sum(axis=axis + 1, dtype=jnp.uint32))
    return jnp.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def most_set(words: jax.Array, axis: int) -> jax.Array:
    """The largest number of bits that are set along an axis, a scalar int32."""
    count = lax.population_count(words).astype(jnp.int32)
    return count.sum(axis=axis, dtype=jnp.int32).max()


def lowest_bit(word: jax.Array) -> jax.Array:
    """The lowest bit that is set; 0 if none is."""
    return word & (~word + 1)  # ~word + 1 is -word, which uint32 does not have


def position(bit: jax.Array) -> jax.Array:
    """Where a word's single set bit stands, int32 from 0 to 31; 0 if none is set."""
    # One less than a power of two has a one for each place below it.
    count = lax.population_count(bit - 1).astype(jnp.int32)
    return jnp.where(bit == 0, 0, count)


def along(values: jax.Array, axis: int, rank: int) -> jax.Array:
    """Lays values `[n]` along one axis of an array of so many axes."""
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def one_zero(scores: jax.Array) -> jax.Array:
    """Replaces -0.0 by 0.0: the two are equal, but sorts put -0.0 behind."""
    # A difference and not a choice of the constant 0, whose derivative would be 0.
    return scores - jnp.where(scores == 0, lax.stop_gradient(scores), 0)


def sort_key(scores: jax.Array) -> jax.Array:
    """Integers int32 in the order of the scores float32; both zeros get one key."""
    bits = lax.bitcast_convert_type(one_zero(scores), jnp.int32)
    # Shifted by 31 places, the sign fills the word: all ones below zero, else zeros.
    return bits ^ ((bits >> 31) & _SIGNED)


def from_key(key: jax.Array) -> jax.Array:
    """The score of a key: the inverse of `sort_key`."""
    return lax.bitcast_convert_type(key ^ ((key >> 31) & _SIGNED), jnp.float32)


class Bounds(NamedTuple):
    """The integers between which a threshold lies, both included; int32 `[R]` each."""

    low: jax.Array
    high: jax.Array


def threshold(keys: jax.Array, k: int, most: int, axis: int) -> jax.Array:
    """An integer that `k` to `most` of the keys along an axis reach, by bisection.

    Where equal keys make that impossible it is the `k`-th largest key: more than `most`
    keys reach it, and fewer than `k` are above it.
    """

    def halve(bounds: Bounds) -> Bounds:
        low, high = bounds
        middle = high - ((high - low) >> 1)  # in (low, high]
        count = (keys >= jnp.expand_dims(middle, axis)).sum(axis=axis, dtype=jnp.int32)
        low = jnp.where(count >= k, middle, low)
        high = jnp.where(count < k, middle - 1, high)
        # A count between k and most ends the bisection of that row.
        return Bounds(low, jnp.where((count >= k) & (count <= most), middle, high))

    # Decide the sign first: the difference of bounds of unlike sign may not fit int32.
    low, high = keys.min(axis=axis), keys.max(axis=axis)  # [R]
    zero = jnp.zeros_like(low)
    signs = (keys >= 0).sum(axis=axis, dtype=jnp.int32) >= k
    bounds = Bounds(
        jnp.where(signs, jnp.maximum(low, zero), low),
        jnp.where(signs, high, jnp.minimum(high, zero - 1)),
    )
    return lax.while_loop(lambda b: jnp.any(b.low < b.high), halve, bounds).low
