"""Finished neighbour lists, and the selection of the best entries of a row.

`top` is the one place where ties of equal scores are decided: for the lower index, or
for the candidate that stands first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._bits import one_zero


class Neighbors(NamedTuple):
    """Sorted neighbour lists, best first.

    Attributes:
        ids: `[..., K]` int32, row indices into the database.
        scores: `[..., K]` float32, larger is better: cosines, or a chain's scores.

    Example:
        >>> Neighbors(jnp.array([[2, 0]]), jnp.array([[0.9, 0.5]])).ids.shape
        (1, 2)
    """

    ids: jax.Array
    scores: jax.Array


class NeighborLists(NamedTuple):
    """Neighbour lists of a set, and the smallest cosine of each row.

    Attributes:
        ids: `[N, K]` int32, best first.
        scores: `[N, K]` float32, cosines.
        minimum: `[N]` float32, the smallest cosine of each row over all rows; infinity
            where it was not asked for.

    Example:
        >>> lists = no_lists(3, 2)  # three rows without neighbours
        >>> lists.first(1).scores.tolist()
        [[-inf], [-inf], [-inf]]
    """

    ids: jax.Array
    scores: jax.Array
    minimum: jax.Array

    def first(self, k: int) -> Neighbors:
        """The first `k` entries of each list."""
        return Neighbors(self.ids[:, :k], self.scores[:, :k])


def top(scores: jax.Array, k: int) -> Neighbors:
    """The `k` best of each row of scores `[R, C]`, ties to the lower index."""
    values, ids = lax.top_k(one_zero(scores), k)
    # Without barriers XLA makes top_k and a later slice of its result a full sort. Each
    # array has its own: one barrier over both cannot be partitioned over a mesh.
    return Neighbors(lax.optimization_barrier(ids), lax.optimization_barrier(values))


def no_neighbors(rows: int, k: int) -> Neighbors:
    """Lists `[rows, k]` of nothing."""
    empty = jnp.full((rows, k), -jnp.inf, jnp.float32)
    return Neighbors(jnp.zeros((rows, k), jnp.int32), empty)


def no_lists(rows: int, k: int) -> NeighborLists:
    """Lists `[rows, k]` of nothing, and minima of nothing."""
    return NeighborLists(*no_neighbors(rows, k), jnp.full(rows, jnp.inf, jnp.float32))


def joined(ids: jax.Array, scores: jax.Array, k: int) -> Neighbors:
    """The best `k` of candidates `[R, C]`, of equals those that stand first."""
    # Where k is C, XLA would make top_k a full sort, which is slower: hence one column
    # of -inf more.
    best = top(jnp.pad(scores, ((0, 0), (0, 1)), constant_values=-jnp.inf), k)
    return Neighbors(jnp.take_along_axis(ids, best.ids, axis=1), best.scores)
