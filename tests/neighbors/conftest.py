"""Tiles so small that rows of a test have many borders between them."""

import jax
import pytest

from dex_jax.neighbors import _tiles
from tests.compilation import optimised


@pytest.fixture
def small_tiles(monkeypatch):
    """Makes tiles small; nothing that was compiled otherwise is reused.

    Programs are compiled quickly: what these tests ask does not turn on rounding.
    """
    jax.clear_caches()
    monkeypatch.setattr(_tiles, "_ONE_TILE", 0)
    monkeypatch.setattr(_tiles, "_TILE", (50, 37))
    monkeypatch.setattr(_tiles, "_SELF_ROWS", (32, 64))
    with optimised(False):
        yield
    jax.clear_caches()
