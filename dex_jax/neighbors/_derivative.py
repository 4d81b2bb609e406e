"""The derivative of a search: that of the cosines in its lists.

Which rows stand in a list does not change under small changes of the rows, so indices
have no derivative. Each cosine of a list is a product of two unit rows, whatever loops
found it; those loops, of which some have a length that depends on data, are left out.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._blocks import take_rows


@jax.custom_jvp
def with_derivative(
    scores: jax.Array, ids: jax.Array, queries: jax.Array, database: jax.Array
) -> jax.Array:
    """The scores as they are, with the derivative of `queries . database[ids]`.

    Args:
        scores: `[M, K]` cosines that a search found; -inf in empty entries, which have
            the derivative 0. Their own derivative is not used.
        ids: `[M, K]` rows of the database.
        queries: `[M, D]` unit rows.
        database: `[N, D]` unit rows.
    """
    del ids, queries, database
    return scores


@with_derivative.defjvp
def _with_derivative_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    scores, ids, queries, database = primals
    *_, queries_dot, database_dot = tangents

    # One entry of all lists at a time. In reverse mode its rows [M, D] are gathered
    # anew, so that no array [K, M, D] is kept.
    @jax.checkpoint
    def entry(column: jax.Array) -> jax.Array:
        rows, rows_dot = take_rows(database, column), take_rows(database_dot, column)
        return jnp.sum(queries_dot * rows + queries * rows_dot, axis=1)

    slope = lax.map(entry, ids.T).T  # [M, K]
    there = scores > -jnp.inf
    found = with_derivative(scores, ids, queries, database)
    return found, jnp.where(there, slope, jnp.zeros((), slope.dtype))
