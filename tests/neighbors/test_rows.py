"""Whole rows of cosines: selection in one step and in two, and blocks of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import Neighbors, _rows, form
from dex_jax.neighbors._rows import _group_size, known_scores
from tests.neighbors.cases import best, ranked, same, whole
from tests.rerank.cases import temporary_bytes

# Scores are whole numbers, and so are all products.
pytestmark = pytest.mark.usefixtures("quick_programs")

FORMS = ("cpu", "wide")
select = jax.jit(_rows.select, static_argnames=("k",))
search_rows = jax.jit(
    _rows.search_rows, static_argnames=("k", "minimum", "cosines_held")
)


def _expected(scores, legal, k, source):
    spread = scores if source is None else scores[:, source]
    return best(np.where(legal, spread, -np.inf), k)


def _check_select(scores, legal, k, source=None):
    given_source = None if source is None else jnp.asarray(source, jnp.int32)
    for name in FORMS:
        with form(name):
            found = select(jnp.asarray(scores), jnp.asarray(legal), k, given_source)
        ids, most = _expected(scores, legal, k, source)
        np.testing.assert_array_equal(found.scores, most)
        there = most > -np.inf
        np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])
        assert found.ids.dtype == jnp.int32


@pytest.mark.quick
@pytest.mark.parametrize("columns", [1, 63, 64, 1000, 1025, 5000])
@pytest.mark.parametrize("k", [1, 9])
def test_selects_as_sorting_would(columns, k):
    k = min(k, columns)
    for values in (1, 50, 10**6):
        scores = whole(values, 5, values, width=columns)
        _check_select(scores, np.ones(columns, bool), k)


@pytest.mark.parametrize("k", [999, 1000])
def test_selects_nearly_all(k):
    _check_select(whole(0, 5, 20, width=1000), np.ones(1000, bool), k)


def test_the_wide_form_selects_in_two_steps_where_that_is_less():
    # So the tests above and below reach both.
    assert [_group_size(n, 9) for n in (64, 1000, 1025, 5000)] == [1, 8, 8, 32]
    assert _group_size(1000, 250) == _group_size(1000, 1000) == 1
    for columns in (1, 100, 4097, 10**6):
        for k in (1, 10, 100):
            group = _group_size(columns, min(k, columns))
            assert group == 1 or columns // group >= 4 * k


@given(
    seed=st.integers(0, 2**31),
    values=st.sampled_from([1, 3, 1000]),
    share=st.sampled_from([0.0, 0.005, 0.5, 1.0]),
    sources=st.sampled_from([1, 20, 1003]),
)
@settings(max_examples=30, deadline=None)
def test_columns_that_do_not_count_or_stand_for_others(seed, values, share, sources):
    rng = np.random.default_rng(seed)
    scores = whole(seed, 5, values, width=1003)
    legal = rng.random(1003) < share
    _check_select(scores, legal, 9)
    source = np.minimum(rng.integers(0, sources, 1003), np.arange(1003))
    _check_select(scores, legal, 9, source)


@pytest.mark.quick
def test_both_zeros_are_one_score():
    scores = np.zeros((3, 1003), np.float32)
    scores[:, ::2] = -0.0
    scores[2] *= -1
    _check_select(scores, np.arange(1003) >= 2, 9)
    _check_select(scores, np.arange(1003) >= 2, 9, np.arange(1003) // 2)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("held", [1, 7 * 500, 10**6])
def test_rows_are_searched_in_blocks_of_any_size(name, held):
    # The wide form takes 128 at least, so here three blocks, two or one.
    queries, rows = whole(0, 300, 5), whole(1, 500, 5)
    legal = np.ones(500, bool)
    legal[::7] = False
    with form(name):
        found = search_rows(
            jnp.asarray(queries),
            jnp.asarray(rows),
            jnp.asarray(legal),
            k=11,
            first=1000,
            minimum=True,
            cosines_held=held,
        )
    scores = queries @ rows.T
    ids, most = best(np.where(legal, scores, -np.inf), 11)
    same(found, (ids + 1000, most))
    np.testing.assert_array_equal(found.minimum, scores.min(axis=1))


def test_without_a_minimum_there_is_none():
    rows = jnp.asarray(whole(0, 30, 5))
    found = search_rows(rows, rows, jnp.ones(30, bool), k=3)
    same(found, ranked(np.asarray(rows), np.asarray(rows), 3))
    assert np.isposinf(found.minimum).all()


@pytest.mark.quick
def test_queries_get_the_scores_that_equal_rows_have_in_known_lists():
    # The pool: queries 0 to 2, rows 3 to 6; rows 4 and 6 equal query 1, 5 query 0.
    first = jnp.array([0, 1, 2, 3, 1, 0, 1], jnp.int32)
    queries = Neighbors(
        jnp.array([[1, 0, 2], [0, 1, 0]], jnp.int32),
        jnp.array([[0.9, 0.5, 0.4], [0.8, -jnp.inf, -jnp.inf]]),
    )
    known = Neighbors(
        jnp.array([[3, 1, 0], [1, 3, 0]], jnp.int32),
        jnp.array([[0.7, 0.7, 0.2], [0.6, 0.6, 0.1]]),
    )
    found = known_scores(queries, first, known, 3)
    assert found.ids.tolist() == queries.ids.tolist()
    # Query 1 stands in neither list of the second row: it stays what it is, nothing.
    expected = [[0.7, 0.5, 0.4], [0.8, -np.inf, -np.inf]]
    np.testing.assert_array_equal(found.scores, np.array(expected, np.float32))


def test_memory_of_the_wide_form_is_bounded():
    # Compiled, not run: ten thousand queries in a million rows, 2^28 cosines at once.
    rows = jax.ShapeDtypeStruct((1_000_000, 8), jnp.float32)
    some = jax.ShapeDtypeStruct((10_000, 8), jnp.float32)
    legal = jax.ShapeDtypeStruct((1_000_000,), jnp.bool)
    with form("wide"):
        taken = temporary_bytes(search_rows.lower(some, rows, legal, k=100))
    assert taken < 3.5 * 4 * _rows.WIDE_COSINES
