"""Lengths of rows, and rows of unit length."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# In a sum of squares above this, squares that underflow to zero are too small to count.
_TINY = 1e-20


@jax.jit
def unit_rows(rows: jax.Array) -> jax.Array:
    """Scales rows `[N, D]` to unit length without overflow at large or tiny values.

    The sum of a row may be rounded in another way at another place of the array; see
    `dex_jax.neighbors._units` for equal rows that have to stay equal.
    """
    return row_lengths(rows).scaled(rows)


class RowLengths(NamedTuple):
    """Lengths of rows in two factors, neither of which overflows.

    Attributes:
        size: `[N, 1]` float32.
        root: `[N, 1]` float32.
    """

    size: jax.Array
    root: jax.Array

    def scaled(self, rows: jax.Array) -> jax.Array:
        """The rows `[N, D]` over their lengths."""
        return rows / self.size / self.root


def row_lengths(rows: jax.Array) -> RowLengths:
    """The lengths of rows `[N, D]`; 1 for rows of zeros."""
    square = jnp.sum(rows * rows, axis=1, keepdims=True)  # [N, 1]
    # Rows whose squares neither overflow nor underflow need no scaling first. The extra
    # passes are skipped if no row needs them; either way a row's result is the same.
    common = (square > _TINY) & (square < jnp.inf)
    square = jnp.where(common, square, 1)

    def plain(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.ones_like(square), square

    def careful(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
        # XLA may divide by multiplying with the inverse, which outside of these bounds
        # is zero or infinite.
        size = jnp.where(size == 0, 1, jnp.clip(size, 2.0**-126, 2.0**126))
        size = jnp.where(common, 1, size)
        small = jnp.sum((rows / size) ** 2, axis=1, keepdims=True)
        return size, jnp.where(common, square, jnp.where(small == 0, 1, small))

    size, square = lax.cond(jnp.all(common), plain, careful, rows)
    return RowLengths(size, jnp.sqrt(square))
