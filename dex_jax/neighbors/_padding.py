"""Queries padded to few sizes, so that other numbers of them reuse programs."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from dex_jax._checks import check_values, is_concrete, read_rows

Tree = TypeVar("Tree")


def check_queries(x: object, name: str) -> tuple[jax.Array, int]:
    """`check_rows` for queries `[Q, D]`, padded to the next size of `padded_size`.

    Other numbers of queries then reuse compiled programs. Padding repeats the last
    query, so that minima and maxima over all queries do not change. Rows inside the
    caller's `jit`, and rows that lie on a mesh, are not padded.

    Returns:
        Rows float32 `[padded_size(Q), D]`, of which those from Q on are padding, and Q.

    Raises:
        ValueError: as `check_rows`.
    """
    array = read_rows(x, name)
    Q = array.shape[0]
    pad = ((0, padded_size(Q) - Q), (0, 0))
    if not is_concrete(array):
        return jnp.asarray(array, jnp.float32), Q
    if not isinstance(array, jax.Array):
        # numpy compiles no program for each number of queries.
        array = np.pad(array, pad, mode="edge")
    elif _on_host(array):
        array = _placed_like(array, np.pad(np.asarray(array), pad, mode="edge"))
    elif len(array.devices()) == 1:
        array = jnp.pad(array, pad, mode="edge")
    return check_values(jnp.asarray(array, jnp.float32), name, Q), Q


def padded_size(rows: int) -> int:
    """How many rows so many queries are padded to: eight sizes up to 512.

    Beyond that, sizes are multiples of an eighth of a power of two, and at most an
    eighth of the rows is padding. That costs less than the seconds which a program for
    each number of queries would take to compile.

    Example:
        >>> [padded_size(rows) for rows in (1, 2, 99, 500, 513, 1052, 3368)]
        [1, 8, 128, 512, 576, 1152, 3584]
    """
    for size in (1, 8, 32, 64, 128, 256, 384, 512):
        if rows <= size:
            return size
    step = 2 ** ((rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def first_rows(tree: Tree, count: int) -> Tree:
    """The first `count` rows of every array of a tree: those that are not padding."""

    def one(array: jax.Array) -> jax.Array:
        if array.shape[0] == count:
            return array
        if is_concrete(array) and _on_host(array):
            # By numpy, which compiles nothing for another number of rows.
            return _placed_like(array, np.asarray(array)[:count])
        if is_concrete(array) and isinstance(array.sharding, NamedSharding):
            return _first_split_rows(array, count)
        return array[:count]

    return jax.tree.map(one, tree)


def _first_split_rows(array: jax.Array, count: int) -> jax.Array:
    """The first rows, still split over a mesh where they can be split evenly."""
    rows, *_ = array.sharding.shard_shape(array.shape)
    if count % (array.shape[0] // rows):
        return array[:count]
    return jax.jit(lambda x: x[:count], out_shardings=array.sharding)(array)


def _placed_like(array: jax.Array, values: np.ndarray) -> jax.Array:
    """Puts values where an array lies.

    One that nobody placed stays free to go where the arrays beside it lie.
    """
    return jax.device_put(values, array.sharding if array.committed else None)


def _on_host(array: jax.Array) -> bool:
    """Whether an array lies on one CPU device, where numpy can read it."""
    devices = array.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"
