"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory.

The one primitive under every re-ranking step. Neighbours are ordered by falling
cosine; equal cosines are ordered by rising index, across blocks and devices too.
"""

from dex_jax.neighbors._lists import Neighbors
from dex_jax.neighbors._search import nearest_neighbors

__all__ = ["Neighbors", "nearest_neighbors"]
