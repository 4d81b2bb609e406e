"""Checks at the public border: what a user may pass in, and what the error says.

Values are looked at only while the arrays are concrete; under a caller's `jit`,
`vmap` or `grad` the checks on values are skipped and those on shapes remain.
"""

import jax
import jax.numpy as jnp
import numpy as np


def is_concrete(*arrays: object) -> bool:
    """Tells whether no array is a tracer, so that values may be looked at."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_rows(x: object, name: str) -> jax.Array:
    """Reads `[N, D]` embeddings as float32 and refuses what cannot be ranked.

    Raises:
        ValueError: not two-dimensional, empty, not numeric, a row that is not finite
            or a row of zeros (values are checked only when concrete).
    """
    array = x if isinstance(x, jax.Array) else np.asarray(x)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected rows [N, D], got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name}: is empty, got shape {array.shape}")
    if not (
        jnp.issubdtype(array.dtype, jnp.floating)
        or jnp.issubdtype(array.dtype, jnp.integer)
    ):
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    rows = jnp.asarray(array, jnp.float32)
    if is_concrete(rows):
        # One reduction finds both faults: NaN and infinity spread, zeros stay zero.
        size = np.asarray(_row_sizes(rows))
        bad = np.flatnonzero(~np.isfinite(size))
        if bad.size:
            raise ValueError(
                f"{name}: {bad.size} row(s) hold NaN or infinity, first row {bad[0]}"
            )
        zero = np.flatnonzero(size == 0)
        if zero.size:
            raise ValueError(
                f"{name}: {zero.size} row(s) are all zero and have no direction, "
                f"first row {zero[0]}"
            )
    return rows


@jax.jit
def _row_sizes(rows: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(rows), axis=1)


def check_same_width(a: jax.Array, b: jax.Array, a_name: str, b_name: str) -> None:
    """Refuses two sets of embeddings of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{a_name} has dimension {a.shape[1]} and {b_name} has {b.shape[1]}; "
            "they must come from the same network"
        )


def check_ids(x: object, name: str, *, size: int) -> jax.Array:
    """Reads integer labels `[size]`; any values are legal.

    Raises:
        ValueError: another shape, or values that are not integers.
    """
    array = x if isinstance(x, jax.Array) else np.asarray(x)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    if isinstance(array, np.ndarray) and array.dtype.itemsize > 4:
        # Labels may be any 64-bit values: rank them, only equality matters.
        array = np.unique(array, return_inverse=True)[1].reshape(-1)
    return jnp.asarray(array, jnp.int32)


def check_count(value: object, name: str, *, least: int = 1) -> int:
    """Reads a static whole number such as `k`.

    Raises:
        ValueError: not an integer, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: expected a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Reads one of several words.

    Raises:
        ValueError: another word.
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
    return value


def unit_rows(rows: jax.Array) -> jax.Array:
    """Scales rows `[N, D]` to unit length without overflow at large or tiny values."""
    size = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    rows = rows / jnp.where(size == 0, 1, size)
    norm = jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))
    return rows / jnp.where(norm == 0, 1, norm)
