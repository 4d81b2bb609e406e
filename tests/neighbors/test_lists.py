"""Running lists: tiles folded in one after another give what sorting all would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import _lists
from dex_jax.neighbors._lists import empty_lists, finished, fold

# Lists are handed their cosines: nothing here turns on rounding.
pytestmark = pytest.mark.usefixtures("quick_programs")

R, C, K = 40, 512, 5
threshold = jax.jit(_lists._threshold, static_argnames=("axis",))
folded = jax.jit(fold, static_argnames=("k", "turned"))


@functools.partial(jax.jit, static_argnames=("k", "turned"))
def _folded(tiles, legal, *, k=K, turned=False):
    """Lists of tiles `[T, R, C]`."""
    lists = empty_lists(tiles.shape[1], k, columns=tiles.shape[2])
    for number, tile in enumerate(tiles):
        lists = fold(
            lists,
            tile.T if turned else tile,
            k=k,
            first=number * tiles.shape[2],
            legal=legal[number],
            turned=turned,
        )
    return finished(lists, k)


def _check(tiles, legal=None, **options):
    tiles = np.asarray(tiles, np.float32)
    T, rows, columns = tiles.shape
    legal = np.ones((T, columns), bool) if legal is None else legal
    found = _folded(jnp.asarray(tiles), jnp.asarray(legal), **options)
    k = options.get("k", K)
    scores = np.where(legal[:, None], tiles, -np.inf)
    scores = scores.transpose(1, 0, 2).reshape(rows, T * columns)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, ids, axis=1)
    np.testing.assert_array_equal(found.scores, best)
    there = np.isfinite(best)
    np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])
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


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 100, 1000, 1056])
@pytest.mark.parametrize("k", [1, 7, 70])
def test_tiles_of_any_width_and_lists_of_any_length(columns, k):
    k = min(k, 3 * columns)
    _check(_tiles(columns, shape=(3, 9, columns)), k=k)
    _check(_tiles(columns, 5, shape=(3, 9, columns)), k=k, turned=True)


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
    step = jax.jit(lambda lists, tile, first: fold(lists, tile, k=K, first=first))
    for number, tile in enumerate(tiles):
        lists = step(lists, tile, number * 64)
        jax.block_until_ready(lists)
    jax.effects_barrier()
    # Once among the zeros of the first tile, once more on the way.
    assert len(cut) == 2


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


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_above_the_last_never_enters(turned):
    # More enters than there are places, so that lists are cut down, but for one row.
    tiles = _tiles(3)
    last = np.full(R, 0, np.float32)
    last[0] = tiles.max()
    lists = empty_lists(R, K, columns=C)._replace(last=jnp.asarray(last))
    for number, tile in enumerate(tiles):
        tile = jnp.asarray(tile.T if turned else tile)
        lists = folded(lists, tile, k=K, first=number * C, turned=turned)
        assert np.all(lists.last >= last)
    found = finished(lists, K)
    assert np.all(found.scores[0] == -np.inf)
    scores = tiles.transpose(1, 0, 2).reshape(R, -1)
    np.testing.assert_array_equal(found.scores[1:], -np.sort(-scores[1:])[:, :K])
