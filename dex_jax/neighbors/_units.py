"""Unit rows of which equal ones stay equal, wherever they stand.

XLA sums the squares of a row in an order that depends on the shape of the array, and on
the row's place in it. Equal rows could so get lengths, and unit rows, that differ in
their last bit; a search would not know them as equal. Rows that are equal before they
are scaled are therefore given one length, that of the first of them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import RowLengths, row_lengths
from dex_jax.neighbors._duplicates import find_duplicates, fingerprints


def given(first: jax.Array, own: jax.Array) -> jax.Array:
    """The values of `first`, with the derivatives of `own`, which they equal."""
    return lax.stop_gradient(first) + (own - lax.stop_gradient(own))


@jax.jit
def unit_set(rows: jax.Array) -> jax.Array:
    """Scales rows `[N, D]` to unit length."""
    first = find_duplicates(fingerprints(rows)).first
    lengths = RowLengths(*(given(x[first], x) for x in row_lengths(rows)))
    return lengths.scaled(rows)


@jax.jit
def unit_pair(
    query: jax.Array, gallery: jax.Array, queries: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scales queries `[Q, D]` and a gallery `[G, D]` to unit length.

    Of the Q rows the first `queries` count, a scalar int32; the rest pads them.
    """
    Q, G = query.shape[0], gallery.shape[0]
    row = jnp.arange(Q + G, dtype=jnp.int32)
    prints = zip(fingerprints(query), fingerprints(gallery), strict=True)
    equal = find_duplicates(
        tuple(map(jnp.concatenate, prints)), (row < queries) | (row >= Q)
    )
    parts = zip(row_lengths(query), row_lengths(gallery), strict=True)
    own = [jnp.concatenate(pair) for pair in parts]  # [Q + G, 1]
    lengths = [given(x[equal.first], x) for x in own]
    return (
        RowLengths(*(x[:Q] for x in lengths)).scaled(query),
        RowLengths(*(x[Q:] for x in lengths)).scaled(gallery),
    )
