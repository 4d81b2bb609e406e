"""A set of rows split over a mesh, of any number.

JAX splits arrays into equal parts only. Where the number of rows does not divide, the
last row is repeated; such padding stands in no list and in no result.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dex_jax._checks import (
    ArrayLike,
    check_rows,
    check_values,
    host_value,
    is_concrete,
    read_rows,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SplitRows:
    """Rows over a mesh; made by `split_rows`, taken wherever a gallery is.

    Attributes:
        rows: `[N', D]`, split over the mesh; rows from `number` on repeat the last one.
        number: N, how many rows there are.
    """

    rows: jax.Array
    number: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, D)`."""
        return self.number, self.rows.shape[1]

    def __len__(self) -> int:
        return self.number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The N rows on the host."""
        return np.array(host_value(self.rows)[: self.number], dtype)


def split_rows(
    rows: ArrayLike, mesh: Mesh, *, axes: str | tuple[str, ...] | None = None
) -> SplitRows:
    """Splits rows `[N, D]` over the devices of a mesh; N need not divide.

    Functions that take a gallery or a database take the result in its place and treat
    it as the N rows that it is of: indices, scores and options are the same. Rows are
    read on the host: outside of `jit`, whose functions may take the result. Where N
    does not divide, scores `[Q, G]` lie whole on every device.

    Args:
        rows: `[N, D]` real numbers, the same in every process, each of which sends its
            own devices their part alone.
        mesh: of devices, in one process or several.
        axes: of the mesh, over which rows are split; all if None.

    Returns:
        The rows, float32, padded to a multiple of the number of parts.

    Raises:
        ValueError: rows that are not numbers `[N, D]`, or an axis that the mesh lacks.

    Example:
        >>> mesh = jax.make_mesh((jax.device_count(),), ("gallery",))
        >>> rows = split_rows([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], mesh)
        >>> rows.shape
        (3, 2)
    """
    given = read_rows(rows, "rows")
    if not is_concrete(given):
        raise ValueError("rows: expected known values, got traced ones; split outside")
    whole = host_value(given)
    names = mesh.axis_names if axes is None else axes
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, tuple) or not names or len(set(names)) < len(names):
        raise ValueError(f"axes: expected different axes of the mesh, got {axes!r}")
    unknown = [name for name in names if name not in mesh.axis_names]
    if unknown:
        raise ValueError(
            f"axes: expected some of {mesh.axis_names}, the mesh's, got {unknown[0]!r}"
        )
    N, D = whole.shape
    parts = int(np.prod([mesh.shape[name] for name in names]))
    padded = -(-N // parts) * parts
    sharding = NamedSharding(mesh, PartitionSpec(names))

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        start, stop, _ = (index or (slice(None),))[0].indices(padded)
        row = np.minimum(np.arange(start, stop), N - 1)
        return whole[row].astype(np.float32)

    return SplitRows(jax.make_array_from_callback((padded, D), sharding, part), N)


def check_gallery(x: object, name: str) -> tuple[jax.Array, int]:
    """`check_rows` of a set that may be split: rows `[N', D]`, and N of them count.

    Raises:
        ValueError: as `check_rows`.
    """
    if not isinstance(x, SplitRows):
        rows = check_rows(x, name)
        return rows, rows.shape[0]
    return check_values(jnp.asarray(x.rows, jnp.float32), name, x.number), x.number


def counted(rows: jax.Array, number: int) -> jax.Array | None:
    """Which rows `[N']` count: the first `number`; None where that is all of them."""
    if rows.shape[0] == number:
        return None
    return jnp.arange(rows.shape[0], dtype=jnp.int32) < number


def repeat_last(rows: jax.Array, number: int) -> jax.Array:
    """Rows of which those from `number` on repeat the last one that counts."""
    there = counted(rows, number)
    if there is None:
        return rows
    return jnp.where(there[:, None], rows, rows[number - 1][None])


def as_given(rows: jax.Array, given: object) -> jax.Array | SplitRows:
    """A changed set in the form in which it was given."""
    return SplitRows(rows, given.number) if isinstance(given, SplitRows) else rows
