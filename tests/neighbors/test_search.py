"""Exact search through the public door: ties at every size, padding, dtypes, errors."""

import logging
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import Neighbors, form, nearest_neighbors
from dex_jax.neighbors._pool import pool_lists
from dex_jax.neighbors._search import limit_k, search, self_search
from tests.neighbors.cases import best, check_lists, ranked, same, split, twins
from tests.rerank.cases import signs

# Products are exact, or what is asked allows for rounding. Searches of more than one
# tile, compiled as users do: test_search_sizes.py.
pytestmark = pytest.mark.usefixtures("quick_programs")

N = 136
FORMS = ("cpu", "wide")
both_forms = pytest.mark.parametrize("name", FORMS)


@pytest.mark.quick
def test_orders_by_cosine_whatever_the_length_of_rows():
    # Angles 0, 90, 45 and 180 degrees to the query.
    database = jnp.array([[0.5, 0.0], [0.0, 9.0], [3.0, 3.0], [-1.0, 0.0]])
    found = nearest_neighbors(jnp.array([[2.0, 0.0]]), database, k=4)
    assert found.ids.tolist() == [[0, 2, 1, 3]]
    np.testing.assert_allclose(found.scores, [[1, 0.5**0.5, 0, -1]], atol=1e-7)


@pytest.mark.quick
def test_ties_go_to_the_lower_index_even_at_zero():
    database = jnp.array([[0.0, 1.0], [0.0, -1.0], [0.0, 1.0], [0.0, -1.0]])
    found = nearest_neighbors(jnp.array([[1.0, 0.0]]), database, k=3)
    assert found.ids.tolist() == [[0, 1, 2]]


@pytest.mark.usefixtures("rough_products")
@both_forms
def test_equal_rows_of_one_tile(name):
    for distinct in (1, 3, 60, N):
        rows, queries = twins(0, N, distinct), twins(9, 20, 10)
        queries[:9] = rows[:9]
        with form(name):
            # Of some rows there are more than k, of others fewer.
            for k in (3, 20):
                check_lists(nearest_neighbors(queries, rows, k=k), queries, rows)
            check_lists(nearest_neighbors(rows, rows, k=20), rows, rows)


@pytest.mark.usefixtures("rough_products", "small_tiles")
def test_equal_rows_in_small_tiles():
    queries = twins(9, 128, 10)

    @given(seed=st.integers(0, 2**31), distinct=st.integers(1, N))
    @settings(max_examples=25, deadline=None)
    def check(seed, distinct):
        rows = twins(seed, N, distinct)
        queries[:60] = rows[:60]
        check_lists(nearest_neighbors(queries, rows, k=12), queries, rows)
        check_lists(nearest_neighbors(rows, rows, k=12), rows, rows)

    check()


def test_rows_that_are_equal_but_for_rounding_stand_in_one_of_their_orders():
    # Cosines with a row of ones are sums of the same numbers in another order.
    rng = np.random.default_rng(0)
    row = rng.normal(size=24).astype(np.float32)
    rows = np.stack([rng.permutation(row) for _ in range(40)])
    rows = rows[rng.integers(0, 40, N)]
    queries = np.concatenate([np.ones((1, 24), np.float32), rows[:7]])
    for name in FORMS:
        with form(name):
            check_lists(nearest_neighbors(queries, rows, k=30), queries, rows)


@pytest.mark.quick
@both_forms
def test_a_zero_of_either_sign_is_one_number(name):
    rows = np.array([[1, -0.0], [1, 0], [-0.0, 1], [0, 1], [1, 0]], np.float32)
    with form(name):
        for queries in (rows, rows.copy()):
            found = nearest_neighbors(queries, rows, k=5)
            assert found.ids[:2].tolist() == [[0, 1, 4, 2, 3]] * 2
            assert found.ids[2:4].tolist() == [[2, 3, 0, 1, 4]] * 2
            assert not np.signbit(found.scores).any()


def test_gradient_of_scores_found_with_one_of_zero():
    found = jax.grad(
        lambda query: nearest_neighbors(query, jnp.eye(2), k=2).scores.sum()
    )(jnp.array([[1.0, 0.0]]))
    # Along the row itself a unit row does not change.
    np.testing.assert_allclose(found, [[0, 1]], atol=1e-6)


@pytest.mark.quick
def test_exclude_self_leaves_duplicates_in():
    rows = signs(8)
    rows[:] = rows[0]
    found = nearest_neighbors(rows, rows, k=2, exclude_self=True)
    assert found.ids[:4].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


@pytest.mark.parametrize("k", [1, 30, 135])
def test_a_set_in_itself(k):
    rows = signs(N)
    found = nearest_neighbors(rows, rows, k=k, exclude_self=True)
    same(found, ranked(rows, rows, k, exclude_self=True))
    found = nearest_neighbors(rows, rows.copy(), k=k, exclude_self=True)
    same(found, ranked(rows, rows, k, exclude_self=True))
    same(nearest_neighbors(rows, rows, k=k), ranked(rows, rows, k))


@pytest.mark.quick
def test_one_row_finds_itself():
    found = self_search(jnp.array([[1.0, 0.0]]), k=1)
    assert found.ids.tolist() == [[0]]
    assert found.scores.tolist() == [[1]]
    assert found.minimum.tolist() == [1]


@both_forms
def test_invalid_rows_come_last(name):
    rows = signs(N)
    valid = np.random.default_rng(0).random(N) < 0.1
    with form(name):
        found = search(
            jnp.asarray(rows), jnp.asarray(rows), k=40, valid=jnp.asarray(valid)
        )
    ids, most = best(np.where(valid, rows @ rows.T, -np.inf), 40)
    np.testing.assert_array_equal(found.scores, most)
    there = most > -np.inf
    np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])
    assert np.isneginf(most[:, valid.sum() :]).all()


def test_k_beyond_the_database_warns_once_and_gives_all():
    rows = jnp.asarray(signs(8))
    with pytest.warns(UserWarning, match="k=20 is more than the 8") as caught:
        found = nearest_neighbors(rows, rows, k=20)
    assert len(caught) == 1
    assert found.ids.shape == (8, 8)
    with pytest.warns(UserWarning, match="k=8 is more than the 7"):
        assert nearest_neighbors(rows, rows, k=8, exclude_self=True).ids.shape == (8, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert limit_k(7, 7, "k") == 7


@both_forms
def test_same_inside_the_callers_jit_and_vmap(name):
    rows = twins(0, N, 50)
    queries = rows[:5]

    @jax.jit
    def inside(factor):
        return nearest_neighbors(factor * queries, jnp.asarray(rows), k=9)

    with form(name):
        plain = nearest_neighbors(queries, rows, k=9)
        lifted = jax.vmap(inside)(jnp.array([1.0, 4.0]))
        for found in (inside(2.0), *(Neighbors(*x) for x in zip(*lifted, strict=True))):
            check_lists(found, queries, rows)
            np.testing.assert_array_equal(found.ids, plain.ids)
            np.testing.assert_allclose(found.scores, plain.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 130])
def test_any_number_of_queries_gets_the_same(count):
    # Padded, and cut back to what was asked for.
    rows = signs(N)
    queries = signs(count, seed=1)
    found = nearest_neighbors(queries, rows, k=20)
    same(found, ranked(queries, rows, 20))
    assert isinstance(found.ids, jax.Array)


def test_a_hundred_numbers_of_queries_compile_eight_programs(caplog):
    rows = signs(32)
    queries = signs(512, seed=1)
    expected = ranked(queries, rows, 3)
    # Of a size of its own: nothing compiled otherwise is reused.
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for count in np.unique(np.linspace(1, 512, 100).astype(int)):
            found = nearest_neighbors(queries[:count], rows, k=3)
            same(found, (expected[0][:count], expected[1][:count]))
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    assert 1 <= compiled.count("_search") <= 8
    assert compiled.count("unit_rows") <= 8 + 1


@pytest.mark.usefixtures("small_tiles")
@both_forms
def test_64_bits_change_nothing(name):
    # On a CPU in tiles of which none holds all.
    rows, queries = signs(68), signs(8, seed=1)
    pool = np.concatenate([queries[:7], rows])
    kept = np.r_[:7, 8:76]  # the eighth query is padding
    with form(name), jax.enable_x64(True):
        plain = nearest_neighbors(queries.astype(np.float64), rows.tolist(), k=9)
        over = split(rows, 2)
        parts = nearest_neighbors(over, over, k=9)
        own = self_search(jnp.asarray(rows), k=9)
        padded = jnp.asarray(np.concatenate([queries[:7], queries[6:7]]))
        lists = pool_lists(
            padded, jnp.asarray(rows), own, width=9, queries=jnp.int32(7)
        )
    same(plain, ranked(queries, rows, 9))
    same(parts, ranked(rows, rows, 9))
    same(own, ranked(rows, rows, 9))
    ids, scores = ranked(pool, pool, 9)
    same((lists.ids[kept], lists.scores[kept]), (kept[ids], scores))
    for found in (plain, parts, own, lists):
        assert {str(x.dtype) for x in found[1:]} == {"float32"}
        assert found.ids.dtype == jnp.int32


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_order_of_the_database_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, 16)).astype(np.float32)
    order = rng.permutation(N)
    plain = nearest_neighbors(rows[:5], rows, k=9)
    moved = nearest_neighbors(rows[:5], rows[order], k=9)
    np.testing.assert_array_equal(order[moved.ids], plain.ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"k": 2.5}, "k: expected a whole number, got 2.5"),
        ({"precision": "bf16"}, "precision: expected one of 'highest', 'tf32x3'"),
        ({"queries": np.ones((2, 3))}, "queries has dimension 3 and database has 4"),
        ({"queries": np.zeros((1, 4))}, "queries: 1 row.* all zero.* first row 0"),
        ({"queries": np.ones(4)}, "queries: expected rows"),
        ({"exclude_self": True}, "exclude_self: queries must be the database"),
        ({"queries": signs(8, 1), "exclude_self": True}, "got other rows of shape"),
    ],
)
def test_says_what_is_wrong(change, message):
    options = {"queries": signs(2), "database": signs(8), "k": 3} | change
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(**options)


@pytest.mark.parametrize("count", [7, 8])
def test_results_stay_on_the_device_of_the_rows(count):
    # Padded or not: eight is a size that needs no padding.
    rows = jax.device_put(signs(40), jax.devices()[3])
    found = nearest_neighbors(rows[:count], rows, k=3)
    assert found.ids.devices() == {jax.devices()[3]}
