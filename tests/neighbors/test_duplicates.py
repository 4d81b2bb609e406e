"""Equal rows are found, others never; candidates stand for all that equal them."""

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import _duplicates
from dex_jax.neighbors._duplicates import Duplicates
from dex_jax.neighbors._selection import Neighbors
from tests.neighbors.cases import twins, whole

# Whole numbers and comparisons: nothing here rounds.
pytestmark = pytest.mark.usefixtures("quick_programs")

fingerprints = jax.jit(_duplicates.fingerprints)
find_duplicates = jax.jit(_duplicates.find_duplicates)
spread = jax.jit(_duplicates.spread, static_argnames=("k",))


@jax.jit
def _found(rows, valid=None):
    return _duplicates.find_duplicates(_duplicates.fingerprints(rows), valid)


def _expected(rows, valid=None):
    """First and next of every row, by a table of what was seen."""
    seen: dict[bytes, list[int]] = defaultdict(list)
    first = np.arange(len(rows))
    following = np.full(len(rows), -1)
    for i, row in enumerate(np.where(rows == 0, np.float32(0), rows)):
        if valid is not None and not valid[i]:
            continue
        group = seen[row.tobytes()]
        if group:
            first[i] = group[0]
            following[group[-1]] = i
        group.append(i)
    return first, following


def _check(rows, valid=None):
    rows = np.asarray(rows, np.float32)
    mask = None if valid is None else jnp.asarray(valid)
    found = _found(jnp.asarray(rows), mask)
    first, following = _expected(rows, valid)
    np.testing.assert_array_equal(found.first, first)
    np.testing.assert_array_equal(found.next, following)
    np.testing.assert_array_equal(found.leads, first == np.arange(len(rows)))
    assert bool(found.some) == bool((following >= 0).any())
    assert found.first.dtype == found.next.dtype == jnp.int32
    return found


@pytest.mark.quick
def test_equal_rows_are_chained_in_order():
    a, b, c = [1.0, 2.0], [2.0, 1.0], [-1.0, 2.0]
    found = _check([a, b, a, c, a, b])
    assert found.first.tolist() == [0, 1, 0, 3, 0, 1]
    assert found.next.tolist() == [2, 5, 4, -1, -1, -1]
    # Of the first three rows alone the chain ends earlier.
    short = found.before(3)
    assert short.first.tolist() == [0, 1, 0]
    assert short.next.tolist() == [2, -1, -1]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(twins(0, 300, 100), id="each three times, zeros of both signs"),
        pytest.param(twins(0, 300, 1), id="all equal"),
        pytest.param(twins(0, 300, 300), id="none equal"),
        pytest.param(np.full((300, 5), -0.0), id="nothing but zeros"),
        pytest.param(whole(1, 300, 3), id="whole numbers"),
        pytest.param(whole(1, 300, 2, width=1), id="one number a row"),
        pytest.param(np.ones((1, 3)), id="one row"),
    ],
)
def test_equal_rows_are_found_wherever_they_stand(rows):
    _check(rows)


def _apart(rows):
    """No two of these rows may be taken for equal, by any one of the words."""
    rows = np.asarray(rows, np.float32)
    assert len(np.unique(rows, axis=0)) == len(rows)
    found = _check(rows)
    assert not found.some
    # One word of 32 bits makes some pairs of many rows equal: about N^2 / 2^33.
    N = len(rows)
    for word in fingerprints(jnp.asarray(rows)):
        alike = N - len(np.unique(np.asarray(word)))
        assert alike <= 3 + 3 * N * N / 2**33


def test_one_bit_of_one_number_makes_another_row():
    row = np.random.default_rng(0).normal(size=40).astype(np.float32)
    bits = np.tile(row.view(np.uint32), (1 + 31 * 40, 1))
    for number in range(40):
        for bit in range(31):  # the highest of the exponent might make it no number
            flipped = 1 << (31 if bit == 30 else bit)
            bits[1 + 31 * number + bit, number] ^= np.uint32(flipped)
    _apart(bits.view(np.float32))


@pytest.mark.parametrize("width", [24, 2048])
def test_other_orders_and_other_signs_make_other_rows(width):
    rng = np.random.default_rng(width)
    row = rng.normal(size=width).astype(np.float32)
    orders = [rng.permutation(row) for _ in range(100)]
    swaps = np.tile(row, (width - 1, 1))
    place = np.arange(width - 1)
    swaps[place, place], swaps[place, place + 1] = row[1:], row[:-1]
    signs = rng.choice([-1.0, 1.0], size=(100, width)) * row
    rows = np.concatenate([row[None], -row[None], orders, swaps, signs])
    _apart(np.concatenate([rows, 2 * rows, rows[:1] / 2]))


@pytest.mark.parametrize("width", [12, 64])
def test_rows_of_two_values_differ(width):
    # Of such rows a sum of anything per place has few terms to differ by.
    rng = np.random.default_rng(width)
    places = np.arange(4096)[:, None] >> np.arange(12) & 1
    rows = rng.choice([-0.5, 0.5], size=(4096, width))
    rows[:, :12] = places - 0.5
    _apart(rows)


def test_rows_of_small_whole_numbers_differ():
    grid = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 4), axis=-1).reshape(-1, 4)
    _apart(grid)
    _apart(np.arange(-5000, 5000)[:, None])


def test_one_number_a_row():
    rng = np.random.default_rng(0)
    bits = np.unique(rng.integers(1, 0x7F800000, size=20_000).astype(np.uint32))
    rows = bits.view(np.float32)
    rows = rows[rows >= np.finfo(np.float32).tiny]  # smaller ones count as zero
    _apart(np.concatenate([rows, -rows])[:, None])


def test_rows_that_are_not_valid_equal_nothing():
    rows = twins(3, 60, 7)
    _check(rows, np.random.default_rng(0).random(60) < 0.5)
    _check(rows, np.zeros(60, bool))
    _check(rows, np.arange(60) == 30)
    assert not _found(jnp.asarray(rows), jnp.arange(60) < 1).some


@pytest.mark.quick
@pytest.mark.parametrize("word", range(4))
def test_one_other_word_makes_another_row(word):
    prints = np.full((4, 5), 7, np.uint32)
    prints[word, 2] = 8
    prints[word, 3:] = 9
    found = find_duplicates(tuple(jnp.asarray(prints)))
    assert found.first.tolist() == [0, 0, 2, 3, 3]
    assert found.next.tolist() == [1, -1, -1, 4, -1]


@given(
    rows=st.lists(
        st.tuples(*[st.sampled_from([-1.0, -0.0, 0.0, 0.5])] * 2),
        min_size=9,
        max_size=9,
    ),
    valid=st.lists(st.booleans(), min_size=9, max_size=9),
)
@settings(max_examples=50, deadline=None)
def test_any_few_rows(rows, valid):
    _check(np.array(rows), np.array(valid))


def _spread(ids, scores, following, k):
    """Every row that a candidate stands for, by falling score, then by index."""
    lists = []
    for row, some in zip(ids, scores, strict=True):
        entries = []
        for head, score in zip(row, some, strict=True):
            while head >= 0 and score > -np.inf:
                entries.append((-score, head))
                head = following[head]
        entries = sorted(entries)[:k]
        entries += [(np.inf, 0)] * (k - len(entries))
        lists.append(entries)
    found = np.array(lists)
    return found[..., 1].astype(int), -found[..., 0]


@given(
    seed=st.integers(0, 2**31),
    distinct=st.sampled_from([1, 5, 30, 60]),
    values=st.sampled_from([1, 4, 1000]),
    k=st.sampled_from([1, 7, 20]),
)
@settings(max_examples=40, deadline=None)
def test_candidates_stand_for_all_that_equal_them(seed, distinct, values, k):
    rng = np.random.default_rng(seed)
    equal = _found(jnp.asarray(twins(seed, 60, distinct)))
    heads = np.flatnonzero(equal.leads)
    # Up to 20 different rows, sorted; a part of them is nothing.
    ids, scores = np.zeros((6, 20), np.int32), np.full((6, 20), -np.inf, np.float32)
    for i in range(6):
        some = rng.permutation(heads)[: rng.integers(0, 21)]
        score = rng.integers(-values, values, size=len(some))
        order = np.lexsort((some, -score))
        ids[i, : len(some)], scores[i, : len(some)] = some[order], score[order]
    lists = Neighbors(jnp.asarray(ids), jnp.asarray(scores))
    found = spread(lists, equal, k=k)
    expected = _spread(ids, scores, np.asarray(equal.next), k)
    np.testing.assert_array_equal(found.scores, expected[1])
    there = expected[1] > -np.inf
    np.testing.assert_array_equal(np.asarray(found.ids)[there], expected[0][there])
    assert (np.asarray(found.ids) >= 0).all()


@pytest.mark.quick
def test_few_candidates_of_many_rows_fill_long_lists():
    equal = _found(jnp.asarray(whole(0, 40, 1, width=1)))  # zeros and ones below
    # Only the first two of 40 candidates are any.
    ids, scores = np.zeros((1, 40), np.int32), np.full((1, 40), -np.inf, np.float32)
    ids[0, :2], scores[0, :2] = np.flatnonzero(equal.leads), 0.5
    lists = Neighbors(jnp.asarray(ids), jnp.asarray(scores))
    found = spread(lists, equal, k=40)
    assert found.ids[0].tolist() == list(range(40))
    assert np.all(found.scores == 0.5)


def test_without_equal_rows_lists_are_only_cut():
    none = jnp.full(9, -1, jnp.int32)
    apart = Duplicates(jnp.arange(9, dtype=jnp.int32), none, jnp.array(False))
    lists = Neighbors(jnp.array([[4, 2, 8]], jnp.int32), jnp.array([[3.0, 2.0, 1.0]]))
    found = spread(lists, apart, k=2)
    assert found.ids.tolist() == [[4, 2]]
    assert found.scores.tolist() == [[3, 2]]
