"""Scores `[Q, G]`: read to be ranked, or to be calculated with.

Kernels are float32. What is only ranked keeps the order that it has in its own type;
what is calculated with is rounded, and a user hears of it where that loses an order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax._checks._arrays import host_value, is_concrete, read_matrix
from dex_jax._checks._warnings import warn_user

# Whole numbers up to this are different ones in float32.
_EXACT = 2**24
# Rows that are looked at for values that float32 does not tell apart.
_SAMPLE = 32
# Values closer than this share of a row's largest one differ by rounding in float64.
_ROUNDING = 1e-14


def ranked_scores(x: object, name: str) -> jax.Array:
    """Reads scores `[Q, G]` as float32 that order each row as its own type does.

    Where rounding to float32 would make different scores equal, the scores of a row are
    replaced by their ranks: 0 for the lowest, equal where they were equal.

    Raises:
        ValueError: another shape, no real numbers, NaN (if concrete), or more different
            scores than float32 has whole numbers.
    """
    array = _read_scores(x, name)
    if isinstance(array, np.ndarray):
        return jnp.asarray(_ordered(array, name))
    if _float32_holds(array.dtype):
        return array.astype(jnp.float32)
    if is_concrete(array) and len(array.sharding.device_set) == 1:
        return jnp.asarray(_ordered(np.asarray(array), name))
    if array.shape[1] > _EXACT:
        raise ValueError(_too_many(name))
    return _device_ranks(array)


def narrow_scores(x: object, name: str) -> jax.Array:
    """Reads scores `[Q, G]` as float32 numbers to calculate with; infinities pass.

    Warns where most of a row's different scores become equal.

    Raises:
        ValueError: another shape, no real numbers, NaN, or finite scores that float32
            cannot hold (values are looked at only when concrete).
    """
    array = _read_scores(x, name)
    if _float32_holds(array.dtype):
        return jnp.asarray(array, jnp.float32)
    if isinstance(array, jax.Array) and not is_concrete(array):
        return array.astype(jnp.float32)
    if isinstance(array, np.ndarray):
        narrow = _float32(array)
        lost = np.isinf(narrow) & (abs(array) < np.inf)
    else:
        narrow = array.astype(jnp.float32)
        lost = host_value(jnp.isinf(narrow) & (abs(array) < jnp.inf))
    if lost.any():
        row, image = np.argwhere(lost)[0]
        raise ValueError(
            f"{name}: row {row} holds {array[row, image]}, expected numbers of size "
            f"{np.finfo(np.float32).max} at most (float32)"
        )
    rows = np.linspace(0, len(array) - 1, min(_SAMPLE, len(array)), dtype=np.int64)
    for number, row in zip(rows, host_value(array[rows]), strict=True):
        if _collapses(row):
            warn_user(
                f"{name}: most different values of row {number} are equal in float32 "
                "and lose their order; subtract an offset that they share, or pass "
                "their ranks"
            )
            break
    return jnp.asarray(narrow)


def _read_scores(x: object, name: str) -> jax.Array | np.ndarray:
    """Real numbers `[Q, G]` in their own type, without NaN if concrete."""
    array = read_matrix(x, name, "scores [Q, G]")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    # NaN spreads through the maximum.
    if isinstance(array, np.ndarray):
        faults = np.isnan(array.max(axis=1))
    else:
        faults = _rows_with_nan(array)
        if not is_concrete(faults):
            return array
    bad = np.flatnonzero(host_value(faults))
    if bad.size:
        raise ValueError(
            f"{name}: {bad.size} row(s) hold NaN, first row {bad[0]}; every score must "
            "be a number"
        )
    return array


@jax.jit
def _rows_with_nan(scores: jax.Array) -> jax.Array:
    # Not NaN of the maximum: one over several devices loses it.
    return jnp.any(jnp.isnan(scores), axis=1)


def _float32_holds(dtype: np.dtype) -> bool:
    """Whether float32 has every number of a type."""
    if jnp.issubdtype(dtype, jnp.floating):
        return dtype.itemsize < 4 or dtype == jnp.float32
    return dtype.itemsize < 4


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(np.float32)


def _ordered(scores: np.ndarray, name: str) -> np.ndarray:
    """Float32 `[Q, G]` that kernels order as the scores are ordered."""
    own = scores.dtype == np.float32
    # A large matrix is not copied where there is nothing to change.
    found = scores if own else np.empty(scores.shape, np.float32)
    for i, row in enumerate(scores):
        narrow = row if own else _float32(row)
        if not _is_exact(row, narrow):
            narrow = _ranks(row, name)
            found = scores.copy() if found is scores else found
        if found is not scores:
            found[i] = narrow
    return found


def _is_exact(row: np.ndarray, narrow: np.ndarray) -> bool:
    """Whether kernels tell apart all values of a row `[G]` in float32."""
    if row.dtype.kind in "iu":
        # Not abs: the lowest integer has no opposite.
        return bool(row.min() >= -_EXACT and row.max() <= _EXACT)
    limits = np.finfo(np.float32)
    # Metrics keep minus infinity for images that are removed, and lift it by a step;
    # numbers below the smallest normal one count as zero in kernels.
    lowest = row[narrow <= limits.min]
    if lowest.size and lowest.min() != lowest.max():
        return False
    if ((narrow != 0) & (abs(narrow) < limits.tiny)).any():
        return False
    return _float32_holds(row.dtype) or bool((narrow == row).all())


def _ranks(row: np.ndarray, name: str) -> np.ndarray:
    """The ranks of different values `[G]` from the lowest on, 0."""
    order = np.argsort(row)
    rising = row[order]
    rank = np.zeros(len(row), np.int32)
    np.cumsum(rising[1:] != rising[:-1], out=rank[1:])
    if rank[-1] >= _EXACT:
        raise ValueError(_too_many(name))
    found = np.empty(len(row), np.float32)
    found[order] = rank
    return found


@jax.jit
def _device_ranks(scores: jax.Array) -> jax.Array:
    """`_ranks` of every row of scores `[Q, G]`, as float32."""
    index = jnp.arange(scores.shape[1], dtype=jnp.int32)

    def one_query(row: jax.Array) -> jax.Array:
        rising, image = lax.sort((row, index), num_keys=1)
        other = (rising[1:] != rising[:-1]).astype(jnp.int32)
        rank = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(other)])
        return jnp.zeros(row.shape, jnp.float32).at[image].set(rank.astype(jnp.float32))

    return lax.map(one_query, scores, batch_size=min(32, scores.shape[0]))


def _too_many(name: str) -> str:
    return (
        f"{name}: a row may hold {_EXACT} different values of this type, got more; "
        "pass float32"
    )


def _collapses(row: np.ndarray) -> bool:
    """Whether at most half of a row's different values `[G]` differ in float32."""
    whole = row.dtype.kind in "iu"
    rising = np.sort(row if whole else row[np.isfinite(row)])
    if not rising.size:
        return False
    narrow = _float32(rising)
    kept = 1 + np.count_nonzero(narrow[1:] != narrow[:-1])
    if whole:
        other = rising[1:] != rising[:-1]
    else:
        other = np.diff(rising) > _ROUNDING * np.abs(rising).max()
    return bool(2 * kept <= 1 + np.count_nonzero(other))
