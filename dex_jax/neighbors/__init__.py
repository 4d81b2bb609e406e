"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory.

The one primitive under every re-ranking step. Neighbours are ordered by falling
cosine; equal cosines are ordered by rising index, across blocks and devices too.
"""

from dex_jax.neighbors._form import form
from dex_jax.neighbors._lists import NeighborLists, Neighbors
from dex_jax.neighbors._search import nearest_neighbors

__all__ = ["NeighborLists", "Neighbors", "form", "nearest_neighbors"]
