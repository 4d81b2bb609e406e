"""Walks over tiles of any size: one set in another, in itself, two in each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import _tiles, form
from dex_jax.neighbors._selection import joined, no_neighbors
from dex_jax.neighbors._tiles import self_search_tiles
from tests.neighbors.cases import best, ranked, same, whole
from tests.rerank.cases import signs, temporary_bytes

# Products are exact: rows are signs or whole numbers.
pytestmark = pytest.mark.usefixtures("quick_programs")

N, M = 136, 45
tiles = jax.jit(
    _tiles.search_tiles, static_argnames=("k", "precision", "tile", "minimum")
)
self_tiles = jax.jit(self_search_tiles, static_argnames=("k", "block", "minimum"))


def _first(found, own, *, width):
    """The best of queries and of known lists, as the pool has them."""
    ids = jnp.concatenate([found.ids, own.ids + M], axis=1)
    return joined(ids, jnp.concatenate([found.scores, own.scores], axis=1), width)


@functools.partial(jax.jit, static_argnames=("k", "tile"))
def joint_tiles(queries, rows, known, legal, *, k, tile=None):
    width = min(k, queries.shape[0] + known.ids.shape[1])
    admit = functools.partial(_first, width=width)
    return _tiles.joint_search_tiles(
        queries, rows, known, legal, admit, k=k, first=1000, tile=tile
    )


def _all(*sizes):
    return tuple(jnp.ones(size, bool) for size in sizes)


@pytest.mark.quick
@pytest.mark.parametrize("tile", [(50, 37), (136, 136), (7, 136), (136, 20)])
def test_tiles_of_any_size_give_the_same_lists(tile):
    rows = signs(N)  # 16 different rows, so most of what is found are ties
    found = tiles(rows, rows, *_all(N), k=30, tile=tile, minimum=True)
    same(found, ranked(rows, rows, 30))
    np.testing.assert_array_equal(found.minimum, (rows @ rows.T).min(axis=1))


@pytest.mark.parametrize(("block", "k"), [(17, 1), (17, 136), (50, 30), (136, 30)])
def test_a_set_in_itself_equals_a_search(block, k):
    rows = signs(N)
    found = self_tiles(rows, *_all(N), k=k, block=block, minimum=True)
    same(found, ranked(rows, rows, k))
    np.testing.assert_array_equal(found.minimum, (rows @ rows.T).min(axis=1))


@pytest.mark.parametrize("share", [0.5, 0.02, 0.0])
def test_rows_that_do_not_count_stand_in_no_list(share):
    rows = signs(N)
    legal = np.random.default_rng(0).random(N) < share
    scores = rows @ rows.T
    ids, most = best(np.where(legal, scores, -np.inf), 30)
    for found in (
        tiles(rows, rows, jnp.asarray(legal), k=30, tile=(50, 37), minimum=True),
        self_tiles(rows, jnp.asarray(legal), k=30, block=50, minimum=True),
    ):
        np.testing.assert_array_equal(found.scores, most)
        there = most > -np.inf
        np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])
        # For the minimum they count: rows are left out because they equal others.
        np.testing.assert_array_equal(found.minimum, scores.min(axis=1))


@pytest.mark.parametrize(
    ("tile", "k"), [(None, 45), ((50, 37), 1), ((7, 136), 136), ((1, 64), 45)]
)
def test_two_sets_in_each_other_equal_two_searches(tile, k):
    queries, rows = signs(M, seed=1), signs(N)
    there, back = joint_tiles(
        queries, rows, no_neighbors(N, 0), _all(M, N), k=k, tile=tile
    )
    ids, scores = ranked(queries, rows, k)
    same(there, (ids + 1000, scores))
    same(back, ranked(rows, queries, min(k, M)))
    products = queries @ rows.T
    np.testing.assert_array_equal(there.minimum, products.min(axis=1))
    np.testing.assert_array_equal(back.minimum, products.min(axis=0))


@pytest.mark.parametrize(
    ("tile", "known"),
    [(None, 5), (None, 12), ((50, 37), 12), ((7, 136), 5), ((1, 64), 12)],
)
def test_known_lists_take_in_what_is_better(tile, known):
    # At first with many ties: those of lower index, the queries, enter.
    for values in (2, 9, 10**3):
        pool = whole(values, M + N, values)
        queries, rows = pool[:M], pool[M:]
        own = tiles(rows, rows, *_all(N), k=known).first(known)
        found = joint_tiles(queries, rows, own, _all(M, N), k=12, tile=tile)[1]
        # Of the rows themselves only those of their lists may be found.
        products = np.full((N, M + N), -np.inf, np.float32)
        products[:, :M] = rows @ queries.T
        np.put_along_axis(products, np.asarray(own.ids) + M, own.scores, axis=1)
        same(found, best(products, 12))
        if known == 12:
            same(found, ranked(rows, pool, 12))


@pytest.mark.parametrize("tile", [None, (7, 64)])
def test_two_sets_of_which_a_part_does_not_count(tile):
    rng = np.random.default_rng(0)
    queries, rows = whole(1, M, 3), whole(2, N, 3)
    legal = rng.random(M) < 0.3, rng.random(N) < 0.05
    there, back = joint_tiles(
        queries,
        rows,
        no_neighbors(N, 0),
        tuple(map(jnp.asarray, legal)),
        k=10,
        tile=tile,
    )
    products = queries @ rows.T
    for found, scores, mask, first in (
        (there, products, legal[1], 1000),
        (back, products.T, legal[0], 0),
    ):
        ids, most = best(np.where(mask, scores, -np.inf), 10)
        np.testing.assert_array_equal(found.scores, most)
        listed = most > -np.inf
        np.testing.assert_array_equal(
            np.asarray(found.ids)[listed], ids[listed] + first
        )
        np.testing.assert_array_equal(found.minimum, scores.min(axis=1))


def test_tiles_of_which_little_is_merged():
    # Many ties, some and hardly any.
    for values in (3, 100, 10**6):
        rows = whole(values, 1100, values)
        if values > 1000:  # one number a row, so that products stay exact
            rows = rows * np.array([1, 0, 0, 0], np.float32)
        found = self_tiles(rows, *_all(1100), k=9, block=256, minimum=True)
        same(found, ranked(rows, rows, 9))
        np.testing.assert_array_equal(found.minimum, (rows @ rows.T).min(axis=1))
        found = tiles(rows[:300], rows, *_all(1100), k=9, tile=(64, 256))
        same(found, ranked(rows[:300], rows, 9))


@pytest.mark.parametrize(
    ("name", "sizes"), [("cpu", (1, 33, 71, 130)), ("wide", (1, 130))]
)
def test_sizes_decide_how_a_set_is_divided(monkeypatch, name, sizes):
    # A block, a part of one tile, and what a walk begins with: none of it shows.
    monkeypatch.setattr(_tiles, "_ONE_TILE", 5000)
    monkeypatch.setattr(_tiles, "_TILE", (32, 40))
    monkeypatch.setattr(_tiles, "_SELF_ROWS", (33, 64))
    for rows in sizes:
        data = whole(rows, rows, 4)
        k = min(rows, 8)
        with form(name):
            own = jax.jit(functools.partial(self_search_tiles, k=k))(data, *_all(rows))
            some = jax.jit(functools.partial(_tiles.search_tiles, k=k))(
                data[::2], data, *_all(rows)
            )
        same(own, ranked(data, data, k))
        same(some, ranked(data[::2], data, k))


def test_memory_of_a_million_rows_is_bounded():
    # Compiled, not run: 256 queries in a million rows, and the graph of all of them.
    rows = jax.ShapeDtypeStruct((1_000_000, 8), jnp.float32)
    some = jax.ShapeDtypeStruct((256, 8), jnp.float32)
    legal = jax.ShapeDtypeStruct((1_000_000,), jnp.bool)
    assert temporary_bytes(tiles.lower(some, rows, legal, k=100)) < 2**28
    lists = 8 * 61 * 1_000_000
    taken = temporary_bytes(self_tiles.lower(rows, legal, k=61, minimum=True))
    assert taken < 2**28 + 3 * lists  # what has been picked waits in twice a list
    many = jax.ShapeDtypeStruct((10_000, 8), jnp.float32)
    known = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1_000_000, 61), x.dtype), no_neighbors(1, 61)
    )
    masks = (jax.ShapeDtypeStruct((10_000,), jnp.bool), legal)
    lowered = joint_tiles.lower(many, rows, known, masks, k=61)
    assert temporary_bytes(lowered) < 2**28
