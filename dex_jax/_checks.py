"""Checks at the public border: what a user may pass in, and what the error says.

Values are looked at only while the arrays are concrete; under a caller's `jit`,
`vmap` or `grad` the checks on values are skipped and those on shapes remain.
"""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding

# In a sum of squares above this, squares that underflow to zero are too small to count.
_TINY = 1e-20


# Modules that extras bring; the base install has jax and numpy.
EXTRA_MODULES = frozenset(
    {
        "PIL",
        "absl",
        "array_record",
        "flax",
        "jinja2",
        "matplotlib",
        "ml_collections",
        "optax",
        "orbax",
        "pyarrow",
        "rich",
        "safetensors",
        "tensorboardX",
        "tensorflow_datasets",
    }
)


class Count(NamedTuple):
    """A count option such as `k`: how wide lists are, and how much of them counts.

    Attributes:
        width: entries of a list, static.
        value: scalar int32, the first entries that count; None where all of them do.
    """

    width: int
    value: jax.Array | None = None


def is_concrete(*arrays: object) -> bool:
    """Whether no array is a tracer, so that values may be looked at."""
    return not any(isinstance(array, Tracer) for array in arrays)


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


def check_ids(x: object, name: str, *, size: int) -> jax.Array:
    """Reads integer labels `[size]` as int32; any values are legal.

    Only equality of labels counts: values that int32 cannot hold are replaced by
    their ranks, -1 alone staying -1. Labels that are compared with each other go to
    `check_paired_ids`.

    Raises:
        ValueError: another shape, or values that are not integers.
    """
    return _narrow(_read_ids(x, name, size))[0]


def check_paired_ids(
    query: object, gallery: object, names: tuple[str, str], sizes: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Reads labels `[Q]` and `[G]` that are compared with each other.

    Raises:
        ValueError: another shape, or values that are not integers.
    """
    pair = (
        _read_ids(query, names[0], sizes[0]),
        _read_ids(gallery, names[1], sizes[1]),
    )
    narrow = _narrow(*pair)
    return narrow[0], narrow[1]


def _read_ids(x: object, name: str, size: int) -> jax.Array | np.ndarray:
    array = x if isinstance(x, jax.Array) else np.asarray(x)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    return array


def _narrow(*arrays: jax.Array | np.ndarray) -> list[jax.Array]:
    """Integer labels as int32, equal where they were equal, across all arrays.

    Where int32 cannot hold a value, all values are replaced by their ranks among the
    values of all arrays; -1 alone stays -1. Traced labels are converted as they are.
    """
    limits = np.iinfo(np.int32)
    # Only int64, uint32 and uint64 can hold values that int32 cannot.
    wide = [
        a for a in arrays if a.dtype.itemsize >= 4 and a.dtype != np.int32 and a.size
    ]
    if is_concrete(*arrays) and any(
        np.min(v) < limits.min or np.max(v) > limits.max for v in map(np.asarray, wide)
    ):
        # As Python integers: int64 and uint64 have no common integer type.
        values = np.concatenate([np.asarray(a).astype(object) for a in arrays])
        known, ranks = np.unique(values, return_inverse=True)
        # -1 means "none" and must stay -1. It is the largest of the negative values, so
        # less their number its rank is -1, and ranks of values from 0 on begin at 0.
        ranks = ranks.reshape(-1) - int((known < 0).sum()) * int((known == -1).any())
        cuts = np.cumsum([a.size for a in arrays])[:-1]
        return [jnp.asarray(part, jnp.int32) for part in np.split(ranks, cuts)]
    return [jnp.asarray(a, jnp.int32) for a in arrays]


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


def check_masked_count(value: object, most: object, name: str) -> Count:
    """Reads a count and its static maximum, which if given lets the count be traced.

    Raises:
        ValueError: not whole numbers of at least 1, a count above its maximum, or a
            traced one without (its value is not looked at).
    """
    if not is_concrete(value):
        if most is None:
            raise ValueError(
                f"{name}: sets a shape and is traced; give {name}_max, the largest "
                "value it may take"
            )
        traced = jnp.asarray(value)
        if traced.shape != () or not jnp.issubdtype(traced.dtype, jnp.integer):
            raise ValueError(
                f"{name}: expected one whole number, got {traced.dtype} of shape "
                f"{traced.shape}"
            )
        width = check_count(most, f"{name}_max")
        return Count(width, traced.astype(jnp.int32))
    if most is None:
        return Count(check_count(value, name))
    # One entry of an array of counts is a count too.
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        value = value.item()
    number, width = check_count(value, name), check_count(most, f"{name}_max")
    if number > width:
        raise ValueError(f"{name}: expected at most {name}_max={width}, got {number}")
    return Count(width, jnp.asarray(number, jnp.int32))


def check_number(
    value: object, name: str, *, least: float = -np.inf, below: float = np.inf
) -> None:
    """Refuses an option that is no number in `[least, below)`; traced ones pass.

    Raises:
        ValueError: not one number, or out of range.
    """
    if not is_concrete(value):
        return
    number = np.asarray(value)
    real = number.dtype.kind in "fiu" or number.dtype == jnp.bfloat16
    if number.shape != () or not real or not least <= float(number) < below:
        upper = "" if below == np.inf else f" and below {below}"
        lower = "" if least == -np.inf else f" of at least {least}"
        raise ValueError(f"{name}: expected a number{lower}{upper}, got {value!r}")


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Reads one of several words.

    Raises:
        ValueError: another word.
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
    return value


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


def missing_extra(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Says which extra brings a module that could not be imported.

    Args:
        error: of the import.
        extra: of the distribution, such as "train", that brings all that is needed.

    Returns:
        One line that names the module and the command to give; the error itself where
        no extra has that module.

    Example:
        >>> error = ModuleNotFoundError("No module named 'mine'", name="mine")
        >>> missing_extra(error, "train") is error  # no extra has it
        True
    """
    root = (error.name or "").partition(".")[0]
    # A module that is installed but fails to import is not mended by the extra.
    if root not in EXTRA_MODULES or importlib.util.find_spec(root) is not None:
        return error
    return ModuleNotFoundError(
        f"{root} is not installed; pip install 'dex_jax[{extra}]' brings it",
        name=error.name,
    )


def require(*modules: str, extra: str) -> None:
    """Checks that modules which are imported only on use are installed.

    Raises:
        ModuleNotFoundError: one is not; says that `extra` brings it.

    Example:
        >>> require("jax", "numpy", extra="train")
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            error = ModuleNotFoundError(f"No module named {module!r}", name=module)
            raise missing_extra(error, extra)
