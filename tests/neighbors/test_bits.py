"""Flags in words, and whole numbers that stand in the order of scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import _bits

# Whole numbers throughout.
pytestmark = pytest.mark.usefixtures("quick_programs")

pack = jax.jit(_bits.pack, static_argnames=("axis",))
threshold = jax.jit(_bits.threshold, static_argnames=("axis",))
BITS = np.array([0, 1, 2, 3, 5, 2**31, 2**31 + 1, 2**32 - 1], np.uint32)


@pytest.mark.quick
@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("axis", [0, 1])
def test_flags_are_packed_lowest_first(size, axis):
    flags = np.random.default_rng(size).random((size, 5)) < 0.5
    padded = np.pad(flags, ((0, -size % 32), (0, 0)))
    words = np.packbits(padded, axis=0, bitorder="little")
    words = np.ascontiguousarray(words.T).view("<u4").T
    found = pack(jnp.asarray(flags.T if axis else flags), axis)
    assert found.dtype == jnp.uint32
    np.testing.assert_array_equal(found.T if axis else found, words)
    assert _bits.most_set(found, axis) == flags.sum(axis=0).max()


def test_the_lowest_bit_and_where_it_is():
    found = _bits.lowest_bit(jnp.asarray(BITS))
    assert found.tolist() == [0, 1, 2, 1, 1, 2**31, 1, 1]
    assert _bits.position(found).tolist() == [0, 0, 1, 0, 0, 31, 0, 0]
    assert _bits.position(found).dtype == jnp.int32
    ones = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    assert _bits.position(ones).tolist() == list(range(32))


@pytest.mark.quick
def test_keys_rise_with_scores_and_both_zeros_are_one():
    scores = np.array([-np.inf, -3e38, -1, -1e-30, -0.0, 0.0, 1e-30, 1, 3e38, np.inf])
    scores = jnp.asarray(scores, jnp.float32)
    keys = np.asarray(_bits.sort_key(scores))
    assert keys.dtype == np.int32
    np.testing.assert_array_equal(np.sign(np.diff(keys)), [1, 1, 1, 1, 0, 1, 1, 1, 1])
    back = np.asarray(_bits.from_key(jnp.asarray(keys)))
    np.testing.assert_array_equal(back, scores)
    assert not np.signbit(back[4:6]).any()


def test_one_zero_keeps_the_derivative():
    x = jnp.array([-0.0, 0.0, 2.0])
    assert not np.signbit(_bits.one_zero(x)).any()
    assert jax.grad(lambda x: (3 * _bits.one_zero(x)).sum())(x).tolist() == [3, 3, 3]


@given(seed=st.integers(0, 2**31), k=st.integers(1, 50), more=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_threshold_parts_the_best(seed, k, more):
    rng = np.random.default_rng(seed)
    few = rng.integers(-3, 3, size=(50, 7))
    many = rng.integers(-(2**31), 2**31 - 1, size=(50, 7))
    for keys in (few, many):
        keys = keys.astype(np.int32)
        limit = np.asarray(threshold(jnp.asarray(keys), k, k + more, axis=0))
        reach, above = (keys >= limit).sum(axis=0), (keys > limit).sum(axis=0)
        assert (reach >= k).all()
        assert ((reach <= k + more) | (above < k)).all()


def test_a_threshold_between_the_ends_of_the_range():
    # The difference of the two is more than an int32 holds.
    ends = np.array([[-(2**31), 2**31 - 1, -1, 0]], np.int32)
    for k in range(1, 5):
        limit = threshold(jnp.asarray(ends), k, k, axis=1)
        assert (ends >= np.asarray(limit)).sum() == k
