"""Arrays of any framework, as they are read at the public border."""

import re
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


class ArrayLike(Protocol):
    """Anything with a length and items: an array, a tensor, a table's column, a list.

    Read by `np.asarray` or, on a GPU, by DLPack. Tensors of torch may have any type of
    numbers, any strides, and require gradients; they are detached. Arrays of numpy with
    masked entries are refused.

    Example:
        >>> def rows(x: ArrayLike) -> int:
        ...     return len(x)
        >>> rows([[1.0, 0.0]])
        1
    """

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def is_concrete(*arrays: object) -> bool:
    """Whether no array is a tracer, so that values may be looked at."""
    return not any(isinstance(array, Tracer) for array in arrays)


def read_array(x: object, name: str) -> jax.Array | np.ndarray:
    """Reads an array of any framework; its type of numbers stays as it is.

    Raises:
        ValueError: nothing that can be read as an array.
    """
    if isinstance(x, jax.Array):
        return x
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(
            f"{name}: holds masked entries; fill them first, labels with -1"
        )
    try:
        if isinstance(x, list | tuple) and any(hasattr(part, "detach") for part in x):
            array = np.stack([np.asarray(_plain(part)) for part in x])
        else:
            x = _plain(x)
            array = jnp.from_dlpack(x) if _is_elsewhere(x) else np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ValueError(
            f"{name}: {type(x).__name__} cannot be read as an array: {error}"
        ) from error
    if array.dtype.kind in "mM":
        raise ValueError(f"{name}: expected numbers or text, got dtype {array.dtype}")
    return array


def read_matrix(x: object, name: str, what: str) -> jax.Array | np.ndarray:
    """Reads real numbers of two axes in their own type; `what`, as in "rows [N, D]".

    Raises:
        ValueError: another number of axes, empty, or no real numbers.
    """
    array = read_array(x, name)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected {what}, got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name}: is empty, got shape {array.shape}; expected {what}")
    whole = jnp.issubdtype(array.dtype, jnp.integer)
    if not (whole or jnp.issubdtype(array.dtype, jnp.floating)):
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def _plain(x: Any) -> Any:
    """A tensor of torch as numpy or DLPack can read it; all else as it is."""
    # Tensors that are part of a computation refuse to be read, and so do views that are
    # conjugates or negatives, and those whose numbers do not lie side by side.
    for change in ("detach", "resolve_conj", "resolve_neg", "contiguous"):
        if callable(getattr(x, change, None)) and hasattr(x, "detach"):
            x = getattr(x, change)()
    # Short floats that numpy lacks; float32 holds their numbers.
    if hasattr(x, "detach") and re.search("bfloat16|float8", str(x.dtype)):
        x = x.float()
    return x


def _is_elsewhere(x: Any) -> bool:
    """Whether a tensor lies on a GPU, where numpy cannot read it."""
    device = str(getattr(x, "device", "cpu"))
    return hasattr(x, "__dlpack__") and not device.startswith("cpu")


def host_value(x: jax.Array | np.ndarray) -> np.ndarray:
    """The value on the host, also of an array whose parts lie in several processes.

    Every process must come here then: the parts are gathered.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    if not isinstance(x.sharding, NamedSharding):
        raise TypeError(f"expected an array on a mesh, got one on {x.sharding}")
    return np.asarray(replicated(x))


def replicated(tree: Tree) -> Tree:
    """The arrays of a tree, each of them whole on every device of its mesh.

    Small results are then the same in all processes. Traced arrays stay as they are.
    """

    def one(x: jax.Array) -> jax.Array:
        if not is_concrete(x) or not isinstance(x.sharding, NamedSharding):
            return x
        if x.is_fully_replicated:
            return x
        return jax.device_put(x, NamedSharding(x.sharding.mesh, PartitionSpec()))

    return jax.tree.map(one, tree)
