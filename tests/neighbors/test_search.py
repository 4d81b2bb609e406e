"""Exact search: ties, tiles, meshes, memory."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dex_jax.neighbors import Neighbors, nearest_neighbors
from dex_jax.neighbors._lists import no_neighbors, top
from dex_jax.neighbors._mesh import merge
from dex_jax.neighbors._search import limit_k, search, self_search
from dex_jax.neighbors._tiles import (
    joint_search_tiles,
    search_tiles,
    self_search_tiles,
    square,
)
from tests.rerank.cases import signs, temporary_bytes

N = 136
tiles = jax.jit(search_tiles, static_argnames=("k", "precision", "tile", "minimum"))
self_tiles = jax.jit(self_search_tiles, static_argnames=("k", "block", "minimum"))
joint_tiles = jax.jit(joint_search_tiles, static_argnames=("k", "tile"))


def _ranked(queries, database, k, *, exclude_self=False):
    scores = queries @ database.T
    if exclude_self:
        np.fill_diagonal(scores, -np.inf)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def _same(found: Neighbors, expected):
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])


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


@pytest.mark.quick
@pytest.mark.parametrize("tile", [(50, 37), (136, 136), (7, 136), (136, 20)])
def test_tiles_of_any_size_give_the_same_lists(tile):
    rows = signs(N)  # 16 different rows, so most of what is found are ties
    found, lowest = tiles(rows, rows, k=30, tile=tile, minimum=True)
    _same(found, _ranked(rows, rows, 30))
    np.testing.assert_array_equal(lowest, (rows @ rows.T).min(axis=1))


@pytest.mark.parametrize("block", [17, 50, 136])
@pytest.mark.parametrize("k", [1, 30, 136])
def test_a_set_in_itself_equals_a_search(block, k):
    rows = signs(N)
    found, lowest = self_tiles(rows, k=k, block=block, minimum=True)
    _same(found, _ranked(rows, rows, k))
    np.testing.assert_array_equal(lowest, (rows @ rows.T).min(axis=1))


JOINT_TILES = [None, (50, 37), (7, 136), (1, 64)]


@pytest.mark.parametrize("k", [1, 45, 136])
@pytest.mark.parametrize("tile", JOINT_TILES)
def test_two_sets_in_each_other_equal_two_searches(tile, k):
    queries, rows = signs(45, seed=1), signs(N)
    there, back = joint_tiles(
        queries, rows, no_neighbors(N, 0), k=k, offset=1000, tile=tile
    )
    ids, scores = _ranked(queries, rows, k)
    _same(there[0], (ids + 1045, scores))
    _same(back[0], _ranked(rows, queries, min(k, 45)))
    products = queries @ rows.T
    np.testing.assert_array_equal(there[1], products.min(axis=1))
    np.testing.assert_array_equal(back[1], products.min(axis=0))


@pytest.mark.parametrize("values", [2, 9, 10**3])
@pytest.mark.parametrize("known", [5, 12])
@pytest.mark.parametrize("tile", JOINT_TILES)
def test_known_lists_take_in_what_is_better(tile, known, values):
    # Whole numbers, at first with many ties: those of lower index, the queries, enter.
    rng = np.random.default_rng(values)
    pool = rng.integers(-values, values, size=(45 + N, 4)).astype(np.float32)
    queries, rows = pool[:45], pool[45:]
    own = tiles(rows, rows, k=known)[0]
    found = joint_tiles(queries, rows, own, k=12, tile=tile)[1][0]
    if known < 12:
        # Of the rows themselves only these may be found.
        products = np.full((N, 45 + N), -np.inf, np.float32)
        products[:, :45] = rows @ queries.T
        np.put_along_axis(products, np.asarray(own.ids) + 45, own.scores, axis=1)
        ids = np.argsort(-products, axis=1, kind="stable")[:, :12]
        _same(found, (ids, np.take_along_axis(products, ids, axis=1)))
    else:
        _same(found, _ranked(rows, pool, 12))


@pytest.mark.parametrize("values", [3, 100, 10**6])
def test_tiles_of_which_little_is_merged(values):
    # Whole numbers: exact products, with many ties, with some and with hardly any.
    rng = np.random.default_rng(values)
    rows = rng.integers(-values, values, size=(1100, 4)).astype(np.float32)
    rows = rows[:, :1] if values > 1000 else rows
    scores = rows @ rows.T
    found, lowest = self_tiles(rows, k=9, block=256, minimum=True)
    _same(found, _ranked(rows, rows, 9))
    np.testing.assert_array_equal(lowest, scores.min(axis=1))
    _same(tiles(rows[:300], rows, k=9, tile=(64, 256))[0], _ranked(rows[:300], rows, 9))


def test_a_negative_zero_is_no_worse_than_zero():
    scores = jnp.array([[-0.0, 0.0, -1.0, -0.0, 0.0]])
    assert top(scores, 4).ids.tolist() == [[0, 1, 3, 4]]


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
def test_a_set_in_itself_through_the_public_door(k):
    rows = signs(N)
    found = nearest_neighbors(rows, rows, k=k, exclude_self=True)
    _same(found, _ranked(rows, rows, k, exclude_self=True))
    found = nearest_neighbors(rows, rows.copy(), k=k, exclude_self=True)
    _same(found, _ranked(rows, rows, k, exclude_self=True))
    _same(nearest_neighbors(rows, rows, k=k), _ranked(rows, rows, k))


def test_more_cosines_than_one_tile_through_the_public_door():
    # Blocks divide neither side, and there are 16 different rows: mostly ties.
    queries, database = signs(4201, seed=1), signs(2101)
    found = nearest_neighbors(queries, database, k=40)
    _same(found, _ranked(queries, database, 40))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 33, 136])
def test_a_block_with_itself_in_strips(rows):
    block = np.random.default_rng(rows).integers(-9, 9, size=(rows, 5))
    block = jnp.asarray(block, jnp.float32)
    np.testing.assert_array_equal(square(block, "highest"), block @ block.T)


@pytest.mark.quick
def test_one_row_finds_itself():
    found, lowest = self_search(jnp.array([[1.0, 0.0]]), k=1)
    assert found.ids.tolist() == [[0]]
    assert lowest.tolist() == [1]


def test_invalid_rows_come_last():
    rows = jnp.asarray(signs(8))
    valid = jnp.arange(8) >= 3
    found = search(rows, rows, k=6, valid=valid)
    assert np.all(np.asarray(found.ids[:, :5]) >= 3)
    assert np.all(np.asarray(found.scores[:, 5]) == -np.inf)


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


@pytest.mark.quick
def test_merges_lists_with_ties_to_the_lower_id():
    a = Neighbors(jnp.array([[4, 1]]), jnp.array([[0.9, 0.5]]))
    b = Neighbors(jnp.array([[7, 0]]), jnp.array([[0.9, 0.5]]))
    merged = merge(a, b, k=3)
    assert merged.ids.tolist() == [[4, 7, 0]]
    np.testing.assert_allclose(merged.scores, [[0.9, 0.9, 0.5]])


def test_same_inside_the_callers_jit_and_vmap():
    rows = jnp.asarray(signs(N))
    plain = nearest_neighbors(rows[:5], rows, k=9)

    @jax.jit
    def inside(factor):
        return nearest_neighbors(factor * rows[:5], rows, k=9)

    _same(inside(2.0), plain)
    lifted = jax.vmap(inside)(jnp.array([1.0, 4.0]))
    for i in range(2):
        _same(jax.tree.map(lambda x, i=i: x[i], lifted), plain)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("axes", ["a", ("a", "b")])
def test_rows_split_over_a_mesh(axes, kind):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"), (kind, kind))
    rows = signs(N)
    split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec(axes)))
    _same(nearest_neighbors(rows[:5], split, k=40), _ranked(rows[:5], rows, 40))
    own = nearest_neighbors(split, split, k=40, exclude_self=True)
    _same(own, _ranked(rows, rows, 40, exclude_self=True))
    _same(nearest_neighbors(split, split, k=40), _ranked(rows, rows, 40))


def test_the_graph_of_split_rows_stays_split():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    rows = signs(N)
    split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("a")))
    found, lowest = self_search(split, k=40)
    _same(found, _ranked(rows, rows, 40))
    np.testing.assert_array_equal(lowest, (rows @ rows.T).min(axis=1))
    assert found.ids.sharding.is_equivalent_to(split.sharding, 2)


def test_coarser_products_find_nearly_the_same():
    rows = np.random.default_rng(0).normal(size=(N, 16)).astype(np.float32)
    exact = nearest_neighbors(rows[:5], rows, k=9)
    for precision in ("high", "default"):
        found = nearest_neighbors(rows[:5], rows, k=9, precision=precision)
        np.testing.assert_allclose(found.scores, exact.scores, atol=1e-2)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_order_of_the_database_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, 16)).astype(np.float32)
    order = rng.permutation(N)
    plain = nearest_neighbors(rows[:5], rows, k=9)
    moved = nearest_neighbors(rows[:5], rows[order], k=9)
    np.testing.assert_array_equal(order[moved.ids], plain.ids)


def test_top_k_stays_a_selection():
    # A slice of the result must not turn the selection into a full sort.
    sliced = jax.jit(lambda x: top(x, 9).ids[:, 1:])
    text = str(sliced.lower(jnp.zeros((8, N))).compile().as_text())
    assert "TopK" in text
    assert " sort(" not in text


def test_memory_of_a_million_rows_is_bounded():
    # Compiled, not run: 256 queries in a million rows, and the graph of all of them.
    rows = jax.ShapeDtypeStruct((1_000_000, 8), jnp.float32)
    some = jax.ShapeDtypeStruct((256, 8), jnp.float32)
    assert temporary_bytes(tiles.lower(some, rows, k=100)) < 2**28
    lists = 8 * 61 * 1_000_000
    taken = temporary_bytes(self_tiles.lower(rows, k=61, minimum=True))
    assert taken < 2**28 + 3 * lists  # what has been picked waits in twice a list
    many = jax.ShapeDtypeStruct((10_000, 8), jnp.float32)
    known = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1_000_000, 61), x.dtype), no_neighbors(1, 61)
    )
    assert temporary_bytes(joint_tiles.lower(many, rows, known, k=61)) < 2**28


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"k": 2.5}, "k: expected a whole number, got 2.5"),
        ({"precision": "bf16"}, "precision: expected one of 'highest'"),
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
