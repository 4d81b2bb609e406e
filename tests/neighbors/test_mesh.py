"""Rows split over the devices of a mesh: the same lists as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dex_jax.neighbors import Neighbors, form, nearest_neighbors
from dex_jax.neighbors._duplicates import fingerprints
from dex_jax.neighbors._mesh import (
    RowShards,
    all_fingerprints,
    gather_lists,
    merge,
    on_parts,
    part_start,
    row_shards,
)
from dex_jax.neighbors._search import search, self_search
from tests.neighbors.cases import best, check_lists, ranked, same, split, twins, whole
from tests.rerank.cases import signs

# Products are exact, or rows are equal bit by bit: programs may round as they like.
pytestmark = pytest.mark.usefixtures("quick_programs")

N = 136
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit


@pytest.mark.quick
def test_tells_how_rows_are_split():
    rows = signs(N)
    assert row_shards(jnp.asarray(rows)) is None
    over = row_shards(split(rows, 8))
    assert over is not None
    assert (over.axes, over.parts) == (("a",), 8)
    over = row_shards(split(rows, 8, AUTO, ("a", "b")))
    assert over is not None
    assert (over.axes, over.parts) == (("a", "b"), 8)
    mesh = over.mesh
    for spec in (PartitionSpec(), PartitionSpec(None, "b")):
        assert row_shards(jax.device_put(rows, NamedSharding(mesh, spec))) is None
    one = split(rows, 1)
    assert row_shards(one) is None
    # Inside a jit nobody knows.
    assert jax.jit(lambda x: jnp.int32(row_shards(x) is None))(split(rows, 8)) == 1


def _shards(devices=8):
    shards = row_shards(split(signs(N), devices))
    assert isinstance(shards, RowShards)
    return shards


def test_every_device_works_on_its_own_rows():
    shards = _shards()
    rows = split(np.arange(16.0)[:, None], 8)

    def part(own, whole):
        start = part_start(shards, own.shape[0])
        return own + whole + start, (own + start).T, whole * 2

    run = jax.jit(on_parts(part, shards, join=(0, 1, None)))
    down, along, equal = run(rows, jnp.float32(100))
    expected = np.arange(16) + np.arange(16) // 2 * 2
    np.testing.assert_array_equal(down[:, 0], expected + 100)
    np.testing.assert_array_equal(along[0], expected)
    assert equal == 200
    # Without a mesh it is the function itself.
    assert on_parts(part, None, join=None) is part
    assert part_start(None, 5) == 0


def test_fingerprints_do_not_depend_on_where_rows_lie():
    rows = twins(0, N, 50)
    for found, expected in zip(
        all_fingerprints(split(rows, 8), _shards()),
        fingerprints(jnp.asarray(rows)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.quick
def test_merges_lists_with_ties_to_the_lower_id():
    a = Neighbors(jnp.array([[4, 1]]), jnp.array([[0.9, 0.5]]))
    b = Neighbors(jnp.array([[7, 0]]), jnp.array([[0.9, 0.5]]))
    merged = merge(a, b, k=3)
    assert merged.ids.tolist() == [[4, 7, 0]]
    np.testing.assert_allclose(merged.scores, [[0.9, 0.9, 0.5]])


def test_gathered_lists_keep_the_order_of_the_parts():
    shards = _shards(4)
    scores = np.random.default_rng(0).integers(0, 3, size=(5, 16)).astype(np.float32)

    def part(own, _):
        order = jnp.argsort(-own.T, axis=1, stable=True)
        ids = order.astype(jnp.int32) + part_start(shards, 4)
        lists = Neighbors(ids, jnp.take_along_axis(own.T, order, axis=1))
        return gather_lists(lists, shards, 9)

    run = jax.jit(on_parts(part, shards, join=None))
    same(run(split(scores.T, 4), None), best(scores, 9))
    lists = Neighbors(jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2)))
    assert gather_lists(lists, None, 2) is lists


@pytest.mark.parametrize("kind", [AUTO, EXPLICIT])
@pytest.mark.parametrize("axes", [("a",), ("a", "b")])
def test_rows_split_over_a_mesh(axes, kind):
    rows = signs(N)
    over = split(rows, 8, kind, axes)
    same(nearest_neighbors(rows[:5], over, k=40), ranked(rows[:5], rows, 40))
    own = nearest_neighbors(over, over, k=40, exclude_self=True)
    same(own, ranked(rows, rows, 40, exclude_self=True))


@pytest.mark.usefixtures("rough_products")
@pytest.mark.parametrize(
    ("devices", "kind", "name"),
    [
        (2, AUTO, "cpu"),
        (2, EXPLICIT, "wide"),
        (4, EXPLICIT, "cpu"),
        (8, AUTO, "wide"),
        (8, EXPLICIT, "cpu"),
    ],
)
def test_equal_rows_on_different_devices(devices, kind, name):
    for distinct in (1, 7, 60):
        rows, queries = twins(devices, N, distinct), twins(99, 9, 9)
        queries[:3] = rows[:3]
        over = split(rows, devices, kind)
        with form(name):
            # Of eight devices each has 17 rows, fewer than a list.
            check_lists(nearest_neighbors(queries, over, k=20), queries, rows)
            check_lists(nearest_neighbors(over, over, k=20), rows, rows)


@pytest.mark.usefixtures("rough_products", "small_tiles")
def test_equal_rows_in_different_tiles_of_different_devices():
    rows = twins(5, 226, 70)
    over = split(rows, 2)
    check_lists(nearest_neighbors(rows[:50], over, k=20), rows[:50], rows)
    check_lists(nearest_neighbors(over, over, k=20), rows, rows)


def test_rows_on_devices_that_do_not_count():
    rows = signs(N)
    valid = np.random.default_rng(0).random(N) < 0.1
    found = search(
        jnp.asarray(rows[:5]), split(rows, 8), k=40, valid=jnp.asarray(valid)
    )
    ids, most = best(np.where(valid, rows[:5] @ rows.T, -np.inf), 40)
    np.testing.assert_array_equal(found.scores, most)
    there = most > -np.inf
    np.testing.assert_array_equal(np.asarray(found.ids)[there], ids[there])


@pytest.mark.parametrize(
    ("rows", "k"), [(signs(N), 40), (whole(0, N, 2, width=6), 7)], ids=["16", "many"]
)
def test_the_lists_of_split_rows_stay_split(rows, k):
    # Of many different rows more tie with the last of a list than it holds.
    over = split(rows, 8)
    found = self_search(over, k=k)
    same(found, ranked(rows, rows, k))
    np.testing.assert_array_equal(found.minimum, (rows @ rows.T).min(axis=1))
    assert found.ids.sharding.is_equivalent_to(over.sharding, 2)
    assert found.minimum.sharding.is_equivalent_to(over.sharding, 1)
    # A search of all parts at once, too.
    found = search(jnp.asarray(rows[:9]), over, k=k)
    same(found, ranked(rows[:9], rows, k))
