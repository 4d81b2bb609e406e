"""Exact nearest neighbours by cosine similarity, in blocks of bounded memory.

The one primitive under every re-ranking step. Neighbours are ordered by falling
cosine; equal cosines are ordered by rising index, across blocks and devices too.
"""

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    check_choice,
    check_count,
    check_rows,
    check_same_width,
    unit_rows,
)

# Scores of one block of rows: large enough for the matrix product to run at full
# speed, small enough to stay a fraction of the inputs.
_BLOCK_BYTES = 64 * 2**20
PRECISIONS = ("highest", "high", "default")


class Neighbors(NamedTuple):
    """Sorted neighbour lists, best first.

    Attributes:
        ids: `[..., K]` int32, row indices into the database.
        scores: `[..., K]` float32, their cosine similarities.
    """

    ids: jax.Array
    scores: jax.Array


def nearest_neighbors(
    queries: jax.Array,
    database: jax.Array,
    *,
    k: int,
    exclude_self: bool = False,
    precision: str = "highest",
) -> Neighbors:
    """Finds the `k` database rows of largest cosine similarity for each query.

    Args:
        queries: `[M, D]`, finite, any row length but zero.
        database: `[N, D]`, the same.
        k: neighbours wanted; beyond what there is: all there is, and one warning.
        exclude_self: `queries` is the database, and no row is its own neighbour.
        precision: of the products: "highest" is full float32 everywhere; "high" and
            "default" let accelerators use coarser arithmetic.

    Returns:
        Neighbors of shape `[M, K]`, sorted; ties go to the lower index.

    Raises:
        ValueError: rows that cannot be ranked (see `check_rows`; values are checked
            only outside of `jit`), different dimensions, `k` below 1, or
            `exclude_self` with two sets of different sizes.

    Example:
        >>> import jax.numpy as jnp
        >>> database = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> nearest_neighbors(database[:1], database, k=2).ids.tolist()
        [[0, 2]]
    """
    queries = check_rows(queries, "queries")
    database = check_rows(database, "database")
    check_same_width(queries, database, "queries", "database")
    k = check_count(k, "k")
    check_choice(precision, "precision", PRECISIONS)
    if exclude_self and queries.shape != database.shape:
        raise ValueError(
            "exclude_self: queries must be the database, got shapes "
            f"{queries.shape} and {database.shape}"
        )
    k = limit_k(k, database.shape[0] - int(exclude_self), "k")
    return search(
        unit_rows(queries),
        unit_rows(database),
        k=k,
        exclude_self=exclude_self,
        precision=precision,
    )


def limit_k(k: int, size: int, name: str) -> int:
    """Returns `k`, or all there is with a warning that names `k` and the size."""
    if k <= size:
        return k
    warnings.warn(
        f"{name}={k} is more than the {size} there are; using {size}",
        UserWarning,
        stacklevel=3,
    )
    return size


@functools.partial(jax.jit, static_argnames=("k", "exclude_self", "precision"))
def search(
    queries: jax.Array,
    database: jax.Array,
    *,
    k: int,
    exclude_self: bool = False,
    valid: jax.Array | None = None,
    precision: str = "highest",
) -> Neighbors:
    """Finds the `k` nearest of `database` `[N, D]` for unit rows `queries` `[M, D]`.

    Rows that `valid` `[N]` leaves out come last, with the score -inf.
    """
    M, N = queries.shape[0], database.shape[0]
    size = _block_rows(M, N)

    def body(block: jax.Array, found: Neighbors) -> Neighbors:
        start = jnp.minimum(block * size, M - size)
        scores = _scores(queries, database, start, size, precision)  # [b, N]
        if exclude_self:
            own = (start + jnp.arange(size))[:, None] == jnp.arange(N)[None]
            scores = jnp.where(own, -jnp.inf, scores)
        if valid is not None:
            scores = jnp.where(valid[None], scores, -jnp.inf)
        return _write(found, _top(scores, k), start)

    empty = Neighbors(jnp.zeros((M, k), jnp.int32), jnp.zeros((M, k), jnp.float32))
    return lax.fori_loop(0, -(-M // size), body, empty)


@functools.partial(jax.jit, static_argnames=("k",))
def self_search(rows: jax.Array, *, k: int) -> tuple[Neighbors, jax.Array]:
    """Finds each unit row's `k` nearest in its own set, the row itself counted.

    Returns:
        Neighbors `[N, K]` and the smallest cosine of each row over all rows `[N]`.
    """
    N = rows.shape[0]
    size = _block_rows(N, N)

    def body(
        block: jax.Array, carry: tuple[Neighbors, jax.Array]
    ) -> tuple[Neighbors, jax.Array]:
        found, minimum = carry
        start = jnp.minimum(block * size, N - size)
        scores = _scores(rows, rows, start, size, "highest")  # [b, N]
        minimum = lax.dynamic_update_slice(minimum, scores.min(axis=1), (start,))
        return _write(found, _top(scores, k), start), minimum

    empty = Neighbors(jnp.zeros((N, k), jnp.int32), jnp.zeros((N, k), jnp.float32))
    return lax.fori_loop(0, -(-N // size), body, (empty, jnp.zeros(N)))


@functools.partial(jax.jit, static_argnames=("k",))
def merge(a: Neighbors, b: Neighbors, *, k: int) -> Neighbors:
    """Merges two sorted lists of different rows into the best `k`, ties to low ids."""
    ids = jnp.concatenate([a.ids, b.ids], axis=-1)
    scores = jnp.concatenate([a.scores, b.scores], axis=-1)
    # Two keys: falling score, then rising id.
    down, ids = lax.sort((-scores, ids), num_keys=2)
    return Neighbors(ids[..., :k], -down[..., :k])


def _block_rows(rows: int, columns: int) -> int:
    """Rows per block, all blocks of about the same size."""
    most = max(8, _BLOCK_BYTES // (4 * columns))
    blocks = -(-rows // most)
    return min(rows, -(-rows // blocks))


def _scores(
    queries: jax.Array, database: jax.Array, start: jax.Array, size: int, precision: str
) -> jax.Array:
    block = lax.dynamic_slice_in_dim(queries, start, size)
    return jnp.matmul(block, database.T, precision=precision)


def _top(scores: jax.Array, k: int) -> Neighbors:
    values, ids = lax.top_k(scores, k)
    # Without barriers a later slice of the result turns top_k into a full sort; one
    # barrier over both is more than the compiler can partition over a mesh.
    return Neighbors(lax.optimization_barrier(ids), lax.optimization_barrier(values))


def _write(found: Neighbors, block: Neighbors, start: jax.Array) -> Neighbors:
    zero = jnp.zeros_like(start)
    ids = lax.dynamic_update_slice(found.ids, block.ids, (start, zero))
    scores = lax.dynamic_update_slice(found.scores, block.scores, (start, zero))
    return Neighbors(ids, scores)
