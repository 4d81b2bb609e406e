"""Unit rows: equal rows get equal bits, wherever they stand and in which array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import form, nearest_neighbors
from dex_jax.neighbors._units import unit_pair, unit_set

SIZES = [1, 8, 13, 77, 301]


@pytest.mark.parametrize("width", [5, 7, 16, 33])
@pytest.mark.parametrize("rows", SIZES)
def test_equal_rows_of_one_set(rows, width):
    # At 77 rows of 5 or 7 numbers the last ones used to be rounded otherwise.
    row = np.random.default_rng(27).standard_normal((1, width)).astype(np.float32)
    units = np.asarray(unit_set(jnp.asarray(np.repeat(row, rows, 0))))
    np.testing.assert_array_equal(units, np.repeat(units[:1], rows, 0))
    np.testing.assert_allclose(units[0], row[0] / np.linalg.norm(row), atol=1e-7)


@pytest.mark.parametrize("width", [16, 17, 32])
def test_equal_rows_of_queries_and_gallery(width):
    gallery = np.random.default_rng(0).standard_normal((301, width))
    gallery = jnp.asarray(gallery, jnp.float32)
    query, database = unit_pair(gallery[:33], gallery, jnp.int32(33))
    np.testing.assert_array_equal(query, database[:33])
    # What pads the queries is nobody's first row.
    padded = jnp.concatenate([gallery[:5], jnp.tile(gallery[100:101], (3, 1))])
    query, again = unit_pair(padded, gallery, jnp.int32(5))
    np.testing.assert_array_equal(query[:5], again[:5])
    np.testing.assert_allclose(again, database, atol=1e-7)


@pytest.mark.parametrize("name", ["cpu", "wide"])
@pytest.mark.parametrize("rows", SIZES[2:])
def test_equal_rows_stand_in_order(rows, name):
    row = np.random.default_rng(27).standard_normal((1, 5)).astype(np.float32)
    database = np.repeat(row, rows, 0)
    with form(name):
        found = nearest_neighbors(row, database, k=4)
    assert found.ids.tolist() == [[0, 1, 2, 3]]


def test_lengths_have_a_gradient():
    rows = jnp.array([[3.0, 4.0], [3.0, 4.0], [1.0, 0.0]])
    slope = jax.grad(lambda rows: unit_set(rows)[0, 0])(rows)
    # d (x / |x|) of the first number: y^2 / |x|^3 and -x y / |x|^3.
    np.testing.assert_allclose(slope[0], [16 / 125, -12 / 125], atol=1e-6)
