"""Running lists: tiles folded in one after another give what sorting all would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from dex_jax.neighbors import _lists
from dex_jax.neighbors._lists import Tile, empty_lists, finished, fold, just_below
from dex_jax.neighbors._selection import NeighborLists, joined, no_lists, top
from tests.neighbors.cases import best, unit64

# Lists are handed their cosines: nothing here turns on rounding.
pytestmark = pytest.mark.usefixtures("quick_programs")

R, C, K = 40, 512, 5
ended = jax.jit(finished, static_argnames=("k",))


@functools.partial(jax.jit, static_argnames=("k", "turned"))
def folded(lists, scores, number, legal, *, k=K, turned=False):
    """Lists into which a tile `[R, C]`, one of a row of them, has been folded."""
    first = number * scores.shape[1]
    tile = Tile(scores.T if turned else scores, first, legal, 0 if turned else 1)
    return fold(lists, tile, k=k)


@functools.partial(jax.jit, static_argnames=("k", "turned"))
def _folded(tiles, legal, *, k=K, turned=False):
    """Lists of tiles `[T, R, C]`."""
    lists = empty_lists(tiles.shape[1], k, columns=tiles.shape[2], minimum=True)

    def step(lists, tile):
        return folded(lists, *tile, k=k, turned=turned), None

    number = jnp.arange(tiles.shape[0], dtype=jnp.int32)
    lists, _ = lax.scan(step, lists, (tiles, number, legal))
    return finished(lists, k)


def _check(tiles, legal=None, **options):
    tiles = np.asarray(tiles, np.float32)
    T, rows, columns = tiles.shape
    legal = np.ones((T, columns), bool) if legal is None else legal
    found = _folded(jnp.asarray(tiles), jnp.asarray(legal), **options)
    k = options.get("k", K)
    scores = np.where(legal[:, None], tiles, -np.inf)
    scores = scores.transpose(1, 0, 2).reshape(rows, T * columns)
    ids, most = best(scores, k)
    np.testing.assert_array_equal(found.scores, most)
    there = np.isfinite(most)
    np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])
    # Of all columns, since those that do not count equal others.
    np.testing.assert_array_equal(found.minimum, tiles.min(axis=(0, 2)))
    return found


def _tiles(seed, values=10**6, shape=(4, R, C)):
    rng = np.random.default_rng(seed)
    return rng.integers(-values, values, size=shape).astype(np.float32)


@pytest.mark.quick
def test_what_is_better_enters_and_of_equals_the_first_stays():
    tiles = [[[0.9, 0.5, 0.1]], [[0.5, 0.9, 0.7]]]
    found = _check(tiles, k=2)
    assert found.ids.tolist() == [[0, 4]]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("values", [1, 2, 30, 10**6])
def test_tiles_one_after_another(turned, values):
    _check(_tiles(values, values), turned=turned)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("columns", "k"),
    [(1, 1), (31, 70), (33, 7), (100, 70), (1056, 9)],
)
def test_tiles_of_any_width_and_lists_of_any_length(columns, k, turned):
    _check(_tiles(columns, shape=(3, 9, columns)), k=k, turned=turned)
    _check(_tiles(columns, 5, shape=(3, 9, columns)), k=k, turned=turned)


@pytest.mark.parametrize("turned", [False, True])
def test_columns_that_do_not_count(turned):
    rng = np.random.default_rng(0)
    legal = rng.random((4, C)) < np.array([[0.5], [0.002], [0.0], [0.9]])
    _check(_tiles(0), legal, turned=turned)


def test_lists_that_hold_less_than_they_could():
    legal = np.broadcast_to(np.arange(C) < 1, (4, C))
    found = _check(_tiles(0), legal)
    assert np.isneginf(found.scores[:, -1]).all()


@pytest.mark.quick
def test_zeros_are_found_where_they_are_the_best():
    tiles = np.full((1, R, C), -1, np.float32)
    tiles[..., 100:] = 0
    assert _check(tiles).ids[0].tolist() == [100, 101, 102, 103, 104]
    # Both zeros are equal, so the first ones stay, whichever they are.
    tiles[..., 100:500:2] = -0.0
    assert _check(tiles).ids[0].tolist() == [100, 101, 102, 103, 104]
    tiles[..., 103:] = 0.0
    tiles[..., 100:103] = -0.0
    assert _check(tiles).ids[0].tolist() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("slope", [-1, 0, 1])
def test_columns_that_get_better_and_better(slope):
    # The worst there is: every column enters the list when it comes.
    tiles = slope * np.arange(4 * R * C, dtype=np.float32).reshape(R, 4, C)
    _check(tiles.transpose(1, 0, 2))


@pytest.mark.parametrize("at", [0, 31, 32, 255, 511])
def test_one_better_column_wherever_it_stands(at):
    tiles = np.zeros((2, R, C), np.float32)
    tiles[1, :, at] = 2
    assert (_check(tiles).ids[:, 0] == C + at).all()


def test_scores_of_every_size_and_sign():
    rng = np.random.default_rng(1)
    tiles = rng.normal(size=(3, R, C)) * 10.0 ** rng.integers(-30, 30, (3, R, C))
    _check(tiles)
    _check(-np.abs(tiles))


def test_lists_are_cut_down_only_when_their_places_are_full(monkeypatch):
    cut = []
    shorten = _lists._shorten

    def watched(lists, k, most):
        jax.debug.callback(lambda: cut.append(k))
        return shorten(lists, k, most)

    monkeypatch.setattr(_lists, "_shorten", watched)
    # Of tiles that bring one entry each, 32 fit behind the list.
    tiles = np.zeros((60, 1, 64), np.float32)
    tiles[:, 0, 0] = 1 + np.arange(60)
    lists = empty_lists(1, K, columns=64)
    jax.clear_caches()
    for number, tile in enumerate(tiles):
        lists = folded(lists, tile, jnp.int32(number), jnp.ones(64, bool))
        jax.block_until_ready(lists)
    jax.effects_barrier()
    # Once among the zeros of the first tile, once more on the way.
    assert len(cut) == 2
    jax.clear_caches()


@given(
    seed=st.integers(0, 2**31),
    values=st.sampled_from([1, 3, 1000]),
    share=st.floats(0, 1),
)
@settings(max_examples=30, deadline=None)
def test_any_tiles_either_way(seed, values, share):
    legal = np.random.default_rng(seed).random((4, C)) < share
    for turned in (False, True):
        _check(_tiles(seed, values), legal, turned=turned)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_above_the_last_never_enters(turned):
    # More enters than there are places, so that lists are cut down, but for one row.
    tiles = _tiles(3)
    last = np.full(R, 0, np.float32)
    last[0] = tiles.max()
    lists = empty_lists(R, K, columns=C)._replace(last=jnp.asarray(last))
    for number, tile in enumerate(tiles):
        lists = folded(lists, tile, jnp.int32(number), jnp.ones(C, bool), turned=turned)
        assert np.all(lists.last >= last)
    found = ended(lists, k=K)
    assert np.all(found.scores[0] == -np.inf)
    scores = tiles.transpose(1, 0, 2).reshape(R, -1)
    np.testing.assert_array_equal(found.scores[1:], -np.sort(-scores[1:])[:, :K])


def test_without_a_minimum_there_is_none():
    lists = empty_lists(R, K, columns=C)
    assert lists.minimum is None
    assert np.isposinf(ended(lists, k=K).minimum).all()


def test_lists_of_nothing():
    found = no_lists(3, 2)
    assert np.isneginf(found.scores).all()
    assert np.isposinf(found.minimum).all()
    assert found.ids.shape == found.scores.shape == (3, 2)


def test_the_first_entries_of_lists():
    found = _folded(jnp.asarray(_tiles(0)), jnp.ones((4, C), bool))
    short = NeighborLists(*found).first(2)
    np.testing.assert_array_equal(short.ids, found.ids[:, :2])
    np.testing.assert_array_equal(short.scores, found.scores[:, :2])


def test_joined_candidates_keep_their_order_where_they_are_equal():
    ids = jnp.array([[9, 4, 7, 1]])
    scores = jnp.array([[0.5, -0.0, 0.5, 0.0]])
    assert joined(ids, scores, 4).ids.tolist() == [[9, 7, 4, 1]]
    assert joined(ids, scores, 1).ids.tolist() == [[9]]


@pytest.mark.quick
def test_a_negative_zero_is_no_worse_than_zero():
    scores = jnp.array([[-0.0, 0.0, -1.0, -0.0, 0.0]])
    assert top(scores, 4).ids.tolist() == [[0, 1, 3, 4]]


def test_top_k_stays_a_selection():
    # A slice of the result must not turn the selection into a full sort.
    sliced = jax.jit(lambda x: top(x, 9).ids[:, 1:])
    text = str(sliced.lower(jnp.zeros((8, 136))).compile().as_text())
    assert "TopK" in text
    assert " sort(" not in text


@pytest.mark.parametrize("width", [24, 512, 4352])
def test_products_of_equal_rows_are_above_just_below(width):
    # Of other shapes, and terms of one sign, whose rounding adds up. A product with a
    # single row is left out: it is summed otherwise, and off by more at 4,352.
    rng = np.random.default_rng(width)
    rows = unit64(np.concatenate([rng.random((62, width)), np.ones((2, width))]))
    rows = jnp.asarray(rows, jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    whole = product(rows, rows)
    parts = [product(rows[i : i + 8], rows) for i in range(0, 64, 8)]
    for scores in (jnp.concatenate(parts), product(rows, rows[:33])):
        others = whole[:, : scores.shape[1]]
        assert (others > just_below(scores)).all()
        assert (scores > just_below(others)).all()
    assert (just_below(whole) > whole - 1e-5).all()


def test_just_below_is_below_at_every_size():
    scores = jnp.array([-jnp.inf, -1.0, -1e-9, 0.0, 1e-9, 0.3, 1.0])
    below = np.asarray(just_below(scores))
    assert (below[1:] < scores[1:]).all()
    assert np.isneginf(below[0])
