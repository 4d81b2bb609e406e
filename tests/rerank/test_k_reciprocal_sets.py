"""The neighbour lists that the sets of k-reciprocal are made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import _tiles
from dex_jax.neighbors._search import self_search
from dex_jax.rerank._k_reciprocal_sets import pool_neighbors
from tests.reference.k_reciprocal import neighbour_lists
from tests.rerank.cases import unit_signs

# Every product is exact, so that programs may round as they like.
pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("width", "known"), [(1, 40), (13, 0), (13, 40), (56, 13)])
def test_a_pool_is_the_same_from_the_lists_of_the_gallery(
    monkeypatch, width, known, split, tiled
):
    if tiled:
        monkeypatch.setattr(_tiles, "_ONE_TILE", 0)
        monkeypatch.setattr(_tiles, "_TILE", (3, 4))
    # Products are exact. A size of its own: nothing compiled otherwise is reused.
    rows = unit_signs(4, rows=8 + 48, width=64 if tiled else 16)
    query, gallery = jnp.asarray(rows[:8]), jnp.asarray(rows[8:])
    if split:
        mesh = jax.make_mesh((8,), ("g",), axis_types=(jax.sharding.AxisType.Auto,))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("g"))
        gallery = jax.device_put(gallery, place)
    graph = self_search(gallery, k=min(max(known, width), 48)) if known else None
    found = pool_neighbors(query, gallery, graph, width=width)
    cosine = rows @ rows.T
    ids = np.array(neighbour_lists(cosine, width))
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.cosines, np.take_along_axis(cosine, ids, 1))
    np.testing.assert_array_equal(found.minimum, cosine.min(axis=1))
