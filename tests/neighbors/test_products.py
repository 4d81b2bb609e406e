"""Products of unit rows, and how exact three products of TF32 are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import nearest_neighbors
from dex_jax.neighbors._products import PRECISIONS, cosines, square
from tests.neighbors.cases import unit64, whole

# Products are exact, compared as they are, or made by numpy.
pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 33, 136])
def test_a_block_with_itself_in_strips(rows):
    block = jnp.asarray(whole(rows, rows, 9, width=5))
    np.testing.assert_array_equal(
        jax.jit(square, static_argnums=1)(block, "highest"), block @ block.T
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_of_whole_numbers(precision):
    a, b = whole(1, 7, 9), whole(2, 12, 9)
    found = cosines(jnp.asarray(a), jnp.asarray(b), precision)
    np.testing.assert_array_equal(found, a @ b.T)


def test_a_cpu_takes_float32_for_three_products_of_tf32():
    rows = np.random.default_rng(0).normal(size=(136, 24)).astype(np.float32)
    exact = nearest_neighbors(rows[:5], rows, k=9)
    found = nearest_neighbors(rows[:5], rows, k=9, precision="tf32x3")
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_coarser_products_find_nearly_the_same():
    rows = np.random.default_rng(0).normal(size=(136, 16)).astype(np.float32)
    exact = nearest_neighbors(rows[:5], rows, k=9)
    for precision in ("high", "default"):
        found = nearest_neighbors(rows[:5], rows, k=9, precision=precision)
        np.testing.assert_allclose(found.scores, exact.scores, atol=1e-2)


def _tf32(x):
    """Rounds float32 to the 10 bits of a mantissa that TF32 keeps, half to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(13)) & np.uint32(1)
    return ((bits + np.uint32(0xFFF) + odd) & np.uint32(0xFFFFE000)).view(np.float32)


def _accumulated(a, b):
    """Sums of exact products of TF32 numbers, in float32, eight terms at a time."""
    total = np.zeros((len(a), len(b)), np.float32)
    for start in range(0, a.shape[1], 8):
        part = slice(start, start + 8)
        exact = a[:, part].astype(np.float64) @ b[:, part].astype(np.float64).T
        total += exact.astype(np.float32)
    return total


@pytest.mark.parametrize("width", [1, 64, 512, 4352])
@pytest.mark.parametrize("kind", ["signed", "positive", "equal"])
def test_three_products_of_tf32_are_as_exact_as_float32(width, kind):
    # What a GPU does, on a CPU: there is no such arithmetic here to measure.
    rng = np.random.default_rng(width)
    rows = np.ones((1, width)) if kind == "equal" else rng.normal(size=(40, width))
    rows = unit64(np.maximum(rows, 1e-3) if kind == "positive" else rows)
    rows = rows.astype(np.float32)
    large = _tf32(rows)
    small = _tf32(rows - large)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    # What the parts leave out: the product of the small ones, and their rounding.
    parts = large + small.astype(np.float64)
    left_out = parts @ parts.T - small.astype(np.float64) @ small.T - exact
    assert np.abs(left_out).max() < 1.5e-7
    # Sums of many equal terms round alike, so that errors add up: float32's too.
    three = _accumulated(large, large)
    three += _accumulated(large, small) + _accumulated(small, large)
    float32 = np.abs(_accumulated(rows, rows) - exact).max()
    most = float32 if kind == "equal" else 1e-6
    assert np.abs(three - exact).max() < most + 1e-7
    if width > 64:  # one product alone is not enough
        assert np.abs(_accumulated(large, large) - exact).max() > 1e-5
