"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory.

Every re-ranking step is built on this search. Lists are ordered by falling cosine, and
equal cosines by rising index, across blocks and devices too; rows of the database that
are equal bit by bit get equal cosines.
"""

from dex_jax.neighbors._form import form
from dex_jax.neighbors._search import nearest_neighbors
from dex_jax.neighbors._selection import NeighborLists, Neighbors
from dex_jax.neighbors._split import SplitRows, split_rows

__all__ = [
    "NeighborLists",
    "Neighbors",
    "SplitRows",
    "form",
    "nearest_neighbors",
    "split_rows",
]
