"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory.

Every re-ranking step is built on this search. Lists are ordered by falling cosine, and
equal cosines by rising index, across blocks and devices too; rows of the database that
are equal bit by bit get equal cosines.
"""

from dex_jax.neighbors._form import form
from dex_jax.neighbors._search import nearest_neighbors
from dex_jax.neighbors._selection import NeighborLists, Neighbors

__all__ = ["NeighborLists", "Neighbors", "form", "nearest_neighbors"]
