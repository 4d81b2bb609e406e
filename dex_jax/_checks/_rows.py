"""Embeddings `[N, D]`: what can be ranked."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks._arrays import host_value, is_concrete, read_matrix


def check_rows(x: object, name: str) -> jax.Array:
    """Reads `[N, D]` embeddings as float32 and refuses what cannot be ranked.

    Raises:
        ValueError: not two-dimensional, empty, not numeric, a row that is not finite
            or a row of zeros (values are checked only when concrete).
    """
    return check_values(jnp.asarray(read_rows(x, name), jnp.float32), name)


def read_rows(x: object, name: str) -> jax.Array | np.ndarray:
    """Reads rows `[N, D]` of real numbers, in their own type."""
    array = read_matrix(x, name, "rows [N, D]")
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        return _within_float32(array)
    return array


def _within_float32(rows: np.ndarray) -> np.ndarray:
    """Rows `[N, D]` whose largest numbers float32 holds: their length plays no part."""
    if rows.dtype.itemsize <= 4:
        return rows
    size = np.max(np.abs(rows), axis=1, initial=0)  # [N]
    limits = np.finfo(np.float32)
    odd = np.isfinite(size) & (size > 0) & ((size > limits.max) | (size < limits.tiny))
    if not odd.any():
        return rows
    return rows / np.where(odd, size, 1)[:, None]


def check_values(rows: jax.Array, name: str, count: int | None = None) -> jax.Array:
    """Refuses rows `[N, D]` with NaN or infinity, or of zeros alone.

    With `count` only the first rows are checked.
    """
    count = rows.shape[0] if count is None else count
    # Arrays that a caller's jit closes over are concrete, but what is computed from
    # them is traced: hence the test of the faults and not of the rows.
    faults = _faults(rows, jnp.asarray(count, jnp.int32))
    if is_concrete(faults):
        endless, first_endless, zero, first_zero = host_value(faults).tolist()
        if endless:
            raise ValueError(
                f"{name}: {endless} row(s) hold NaN or infinity, first row "
                f"{first_endless}"
            )
        if zero:
            raise ValueError(
                f"{name}: {zero} row(s) are all zero and have no direction, first row "
                f"{first_zero}"
            )
    return rows


@jax.jit
def _faults(rows: jax.Array, count: jax.Array) -> jax.Array:
    """Of the first `count` rows: how many are not finite and the first of them.

    Then the same of those that are all zero, `[4]` int32. Only these four numbers leave
    the devices, whatever their number.
    """
    # One reduction finds both faults: the largest absolute value is infinite, or zero.
    # NaN counts as infinite, since maxima over several devices lose it.
    size = jnp.max(jnp.where(jnp.isnan(rows), jnp.inf, jnp.abs(rows)), axis=1)  # [N]
    row = jnp.arange(rows.shape[0], dtype=jnp.int32)
    faults = []
    for bad in (~jnp.isfinite(size), size == 0):
        bad &= row < count
        first = jnp.where(bad, row, rows.shape[0]).min()
        faults += [bad.sum(dtype=jnp.int32), first.astype(jnp.int32)]
    return jnp.stack(faults)


def check_same_width(
    a: jax.Array | np.ndarray, b: jax.Array | np.ndarray, a_name: str, b_name: str
) -> None:
    """Refuses two sets of embeddings of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{a_name} has dimension {a.shape[1]} and {b_name} has {b.shape[1]}; "
            "they must come from the same network"
        )
