"""Labels of images: identities, cameras, tracklets."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks._arrays import is_concrete


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
