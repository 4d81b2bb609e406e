"""Embeddings `[N, D]`: what can be ranked."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from dex_jax._checks._arrays import is_concrete


def check_rows(x: object, name: str) -> jax.Array:
    """Reads `[N, D]` embeddings as float32 and refuses what cannot be ranked.

    Raises:
        ValueError: not two-dimensional, empty, not numeric, a row that is not finite
            or a row of zeros (values are checked only when concrete).
    """
    return check_values(jnp.asarray(read_rows(x, name), jnp.float32), name)


def read_rows(x: object, name: str) -> jax.Array | np.ndarray:
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
    return array


def check_values(rows: jax.Array, name: str, count: int | None = None) -> jax.Array:
    """Refuses rows `[N, D]` with NaN or infinity, or of zeros alone.

    With `count` only the first rows are checked.
    """
    rows = _automatic(rows)
    # One reduction finds both faults: the largest absolute value is NaN or infinite, or
    # zero. Arrays that a caller's jit closes over are concrete, but what is computed
    # from them is traced: hence the test of `sizes` and not of the rows.
    sizes = _row_sizes(rows)
    if is_concrete(sizes):
        size = np.asarray(sizes)[:count]
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


def _automatic(rows: jax.Array) -> jax.Array:
    """Rows where they are, but on a mesh whose axes have automatic type.

    On axes of explicit type every gather would have to name the sharding of its result.
    """
    if not is_concrete(rows) or not isinstance(rows.sharding, NamedSharding):
        return rows
    mesh = rows.sharding.mesh
    if AxisType.Explicit not in mesh.axis_types or not isinstance(mesh, Mesh):
        return rows
    automatic = Mesh(mesh.devices, mesh.axis_names)
    return jax.device_put(rows, NamedSharding(automatic, rows.sharding.spec))


@jax.jit
def _row_sizes(rows: jax.Array) -> jax.Array:
    """The largest absolute value of each row, `[N]`; NaN where a row holds NaN."""
    return jnp.max(jnp.abs(rows), axis=1)


def check_same_width(
    a: jax.Array | np.ndarray, b: jax.Array | np.ndarray, a_name: str, b_name: str
) -> None:
    """Refuses two sets of embeddings of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{a_name} has dimension {a.shape[1]} and {b_name} has {b.shape[1]}; "
            "they must come from the same network"
        )
