"""Small tiles, and products that round otherwise at every place."""

import jax
import jax.numpy as jnp
import pytest

from dex_jax.neighbors import _products, _rows, _tiles
from tests.compilation import optimised


@pytest.fixture
def small_tiles(monkeypatch):
    """Makes tiles so small that rows of a test have many borders between them.

    Nothing that was compiled otherwise is reused. Programs are compiled quickly: what
    these tests ask does not turn on how they round.
    """
    jax.clear_caches()
    monkeypatch.setattr(_tiles, "_ONE_TILE", 0)
    monkeypatch.setattr(_tiles, "_TILE", (50, 37))
    monkeypatch.setattr(_tiles, "_SELF_ROWS", (32, 64))
    with optimised(False):
        yield
    jax.clear_caches()


@pytest.fixture
def rough_products(monkeypatch):
    """Makes the product of one pair of rows depend on where in a tile it stands.

    GPUs and some CPUs do that, others do not: here it shows on all.
    """
    jax.clear_caches()
    plain = _products.cosines

    def rough(a, b, precision="highest"):
        scores = plain(a, b, precision)
        rows, columns = (jnp.arange(n, dtype=jnp.uint32) for n in scores.shape)
        place = 31 * rows[:, None] + columns[None] + jnp.uint32(7 * scores.size)
        mixed = (place ^ (place >> 3)) * jnp.uint32(0x9E3779B1) >> 29
        return scores + (mixed.astype(jnp.float32) - 4) * 6e-8

    for module in (_products, _rows, _tiles):
        monkeypatch.setattr(module, "cosines", rough)
    with optimised(False):
        yield
    jax.clear_caches()
