"""Arrays of any framework, as they are read at the public border."""

from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


class ArrayLike(Protocol):
    """Anything with a length and items: an array, a tensor, a table's column, a list.

    Read by `jnp.asarray`, `np.asarray` or DLPack. Tensors of torch may have any type
    that jax has, lie on a GPU and require gradients; they are detached.

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
    # Tensors of torch that are part of a computation refuse to be read.
    detach = getattr(x, "detach", None)
    try:
        x = detach() if callable(detach) else x
        if _needs_dlpack(x):
            return jnp.from_dlpack(x)
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ValueError(
            f"{name}: {type(x).__name__} cannot be read as an array: {error}"
        ) from error


def _needs_dlpack(x: object) -> bool:
    """Whether numpy cannot read a tensor: it has no bfloat16, and no GPU."""
    if not hasattr(x, "__dlpack__") or isinstance(x, np.ndarray):
        return False
    device = str(getattr(x, "device", "cpu"))
    return "bfloat16" in str(getattr(x, "dtype", "")) or not device.startswith("cpu")


def host_value(x: jax.Array | np.ndarray) -> np.ndarray:
    """The value on the host, also of an array whose parts lie in several processes.

    Every process must come here then: the parts are gathered.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    if not isinstance(x.sharding, NamedSharding):
        raise TypeError(f"expected an array on a mesh, got one on {x.sharding}")
    return np.asarray(
        jax.device_put(x, NamedSharding(x.sharding.mesh, PartitionSpec()))
    )


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
