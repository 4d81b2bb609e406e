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

    Rows of zeros stay zero. The derivative is finite wherever the length is: it is
    `(I - u u^T) / length`, and 0 for rows of zeros.

    The sum of a row may be rounded in another way at another place of the array; see
    `dex_jax.neighbors._units` for equal rows that have to stay equal.
    """
    return row_lengths(rows).scaled(rows)


@jax.custom_jvp
def _over_length(
    values: jax.Array, rows: jax.Array, size: jax.Array, root: jax.Array
) -> jax.Array:
    """`values` over the lengths of `rows`, both `[N, D]`, the lengths being known.

    Left to itself, a derivative would square a factor of the length, which may be zero
    or overflow. With u the unit rows, that of `v / |x|` is
    `dv / |x| - (v / |x|) (u . dx / |x|)`, which divides by one length at a time.
    """
    del rows
    # Not two divisions, which XLA may join: the product of the factors may overflow.
    return values * (1 / size) / root


@_over_length.defjvp
def _over_length_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    values, rows, size, root = primals
    values_dot, rows_dot, *_ = tangents
    scaled = _over_length(values, rows, size, root)
    unit = _over_length(rows, rows, size, root)
    moved = _over_length(rows_dot, rows, size, root)
    # A product and not a sum: XLA 0.10.2 for CPUs, under vmap, fuses the sum with the
    # line below and gets it wrong.
    along = jnp.einsum("nd,nd->n", unit, moved, precision="highest")
    slope = _over_length(values_dot, rows, size, root) - scaled * along[:, None]
    # A row of zeros has no direction to change.
    there = jnp.any(rows != 0, axis=1, keepdims=True)
    return scaled, jnp.where(there, slope, 0)


class RowLengths(NamedTuple):
    """Lengths of rows in two factors, neither of which overflows.

    Attributes:
        size: `[N, 1]` float32, powers of two, so that scaling by them is exact.
        root: `[N, 1]` float32.
    """

    size: jax.Array
    root: jax.Array

    def scaled(self, rows: jax.Array) -> jax.Array:
        """The rows `[N, D]` over their lengths."""
        return _over_length(rows, rows, self.size, self.root)


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
        # Outside of these bounds the inverse is zero or infinite.
        size = jnp.where(size == 0, 1, jnp.clip(size, 2.0**-126, 2.0**126))
        # A factor that the square below makes up for, whatever it is.
        size = lax.stop_gradient(jnp.where(common, 1, _power_of_two(size)))
        small = jnp.sum((rows * (1 / size)) ** 2, axis=1, keepdims=True)
        return size, jnp.where(common, square, jnp.where(small == 0, 1, small))

    size, square = lax.cond(jnp.all(common), plain, careful, rows)
    return RowLengths(size, jnp.sqrt(square))


def _power_of_two(x: jax.Array) -> jax.Array:
    """The largest power of two up to x, float32 above zero: its exponent alone."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    return lax.bitcast_convert_type(bits & jnp.int32(0x7F800000), jnp.float32)
