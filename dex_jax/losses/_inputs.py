"""What losses are given: matrices of numbers, and numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import ArrayLike, check_number, read_matrix

_LARGEST = float(np.finfo(np.float32).max)


def read_inputs(x: ArrayLike, name: str, shape: str) -> jax.Array:
    """Reads a matrix in float32, or in float64 where it has that type.

    Raises:
        ValueError: not of that `shape`, such as "[B, D]", empty, or no real numbers.
    """
    array = jnp.asarray(read_matrix(x, name, shape))
    # Not promote_types of integers: in 64-bit mode theirs is float64.
    return array.astype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def read_option(
    value: float | jax.Array,
    name: str,
    like: jax.Array,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    most: float = _LARGEST,
) -> jax.Array:
    """Reads a number in the type of `like`, so that the loss has that type too.

    Raises:
        ValueError: not one finite number, or out of range; see `check_number`.
    """
    number = check_number(value, name, least=least, above=above, most=most)
    return jnp.asarray(number, like.dtype)
