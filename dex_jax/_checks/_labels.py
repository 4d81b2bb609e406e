"""Labels of images: identities, cameras, tracklets, classes.

Identities, cameras and tracklets may be integers or text. Only equality counts, and -1
(as text "-1" or the empty one) means "unknown".
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax._checks._arrays import host_value, is_concrete, read_array

# Texts that mean "unknown", as -1 does among integers.
_UNKNOWN_TEXTS = ("", "-1")
# Every bit of a word: both words of -1 in 64 bits.
_ALL_BITS = np.uint32(0xFFFFFFFF)

Labels = jax.Array | np.ndarray


def check_ids(x: object, name: str, *, size: int, text: bool = True) -> jax.Array:
    """Reads labels `[size]` as int32, in which only equality and -1 mean something.

    Integers of any type, or text (bytes are read as UTF-8), of which "-1" and "" are
    -1. Text, and integers that int32 cannot hold, are replaced by codes from 0 on, -1
    alone staying -1. Labels that are compared with each other go to `check_paired_ids`.

    Raises:
        ValueError: another shape, or values that are neither integers nor, where `text`
            allows it, text.
    """
    # Inside a caller's jit, labels that are known there stay known.
    with jax.ensure_compile_time_eval():
        return _narrow([_read_labels(x, name, size, text)], [name])[0]


def check_paired_ids(
    query: object,
    gallery: object,
    names: tuple[str, str],
    sizes: tuple[int | None, int | None] = (None, None),
) -> tuple[jax.Array, jax.Array]:
    """Reads labels `[Q]` and `[G]` that are compared with each other; see `check_ids`.

    Raises:
        ValueError: another shape (where a size is None, any length is right), values
            that are neither integers nor text, or text on one side alone.
    """
    pair = [
        _read_labels(x, name, size)
        for x, name, size in zip((query, gallery), names, sizes, strict=True)
    ]
    with jax.ensure_compile_time_eval():
        query_ids, gallery_ids = _narrow(pair, names)
    return query_ids, gallery_ids


def check_classes(x: object, name: str, *, size: int, classes: int) -> jax.Array:
    """Reads class labels `[size]`, integers in `0 .. classes - 1`, as int32.

    Traced ones outside become `classes`, so that none of them wraps into another class.

    Raises:
        ValueError: another shape, values that are no integers or, where they are
            concrete, out of range.
    """
    labels = _read_labels(x, name, size, text=False)
    if is_concrete(labels):
        values = host_value(labels)
        if size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"{name}: expected values in 0 .. {classes - 1} for {classes} classes, "
                f"got {values.min()} .. {values.max()}"
            )
        return jnp.asarray(labels, jnp.int32)
    labels = jnp.asarray(labels)
    # Compared in the type that was given, in which `classes` may not fit.
    most = min(classes - 1, np.iinfo(labels.dtype).max)
    inside = (labels >= 0) & (labels <= jnp.asarray(most, labels.dtype))
    return jnp.where(inside, labels.astype(jnp.int32), jnp.int32(classes))


def _read_labels(x: object, name: str, size: int | None, text: bool = True) -> Labels:
    """An array `[N]` of integers, or of Python's integers or texts as objects."""
    plain = isinstance(x, list | tuple) and all(
        isinstance(value, int | str | bytes) for value in x
    )
    # Numpy would make texts of the numbers beside them, and floats of large integers.
    array = np.array(x, object) if plain else read_array(x, name)
    if array.ndim != 1 or size not in (None, array.shape[0]):
        expected = "labels of shape [N]" if size is None else f"shape ({size},)"
        raise ValueError(f"{name}: expected {expected}, got {array.shape}")
    if isinstance(array, np.ndarray) and array.dtype.kind in "OSTU":
        array = _read_objects(array.tolist(), name)
    if array.dtype == object and text:
        return array
    if not jnp.issubdtype(array.dtype, jnp.integer) and not _is_whole(array):
        kinds = "integers or text" if text else "integers"
        given = "text" if array.dtype == object else f"dtype {array.dtype}"
        raise ValueError(
            f"{name}: expected {kinds}, got {given}; convert the labels to integers"
        )
    return array


def _is_whole(array: Labels) -> bool:
    """Whether an array holds Python's integers, which no type of numpy could."""
    return array.dtype == object and not _is_text(array)


def _is_text(array: Labels) -> bool:
    return array.dtype == object and array.size > 0 and isinstance(array[0], str)


def _read_objects(values: list, name: str) -> np.ndarray:
    """Texts as objects `[N]`, or integers, as objects where int64 cannot hold them."""
    known = [_kind(value) for value in values]
    if None in known:
        at = known.index(None)
        raise ValueError(
            f"{name}: expected integers or text, got {type(values[at]).__name__} at "
            f"{at}; convert the labels to integers"
        )
    if len(set(known)) > 1:
        at = known.index("text" if known[0] == "integer" else "integer")
        raise ValueError(
            f"{name}: expected integers or text, got both: {values[0]!r} at 0 and "
            f"{values[at]!r} at {at}"
        )
    if not known or known[0] == "integer":
        try:
            return np.array([int(value) for value in values], np.int64)
        except OverflowError:
            return np.array([int(value) for value in values], object)
    found = np.empty(len(values), object)
    found[:] = [
        v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v)
        for v in values
    ]
    return found


def _kind(value: object) -> str | None:
    """What a label is: "text", "integer" or, where it is neither, None."""
    if isinstance(value, str | bytes):
        return "text"
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return "integer" if whole else None


def _narrow(arrays: Sequence[Labels], names: Sequence[str]) -> list[jax.Array]:
    """Labels as int32, equal where they were equal across all arrays; -1 stays -1."""
    filled = [(a, n) for a, n in zip(arrays, names, strict=True) if a.size]
    texts = [n for a, n in filled if _is_text(a)]
    others = [n for a, n in filled if not _is_text(a)]
    if texts and others:
        raise ValueError(
            f"{texts[0]}: is text and {others[0]} is integers; labels that are "
            "compared must be of one kind"
        )
    if texts:
        return _codes([array.tolist() for array in arrays], _UNKNOWN_TEXTS)
    if is_concrete(*arrays):
        if not any(_is_wide(array) for array in arrays):
            return [jnp.asarray(array, jnp.int32) for array in arrays]
        return _codes([host_value(array).tolist() for array in arrays], (-1,))
    for array, name in zip(arrays, names, strict=True):
        if is_concrete(array) and _is_wide(array):
            raise ValueError(
                f"{name}: holds values beyond int32 and stands beside traced labels; "
                "number the labels from 0 on"
            )
    # Those that are no tracers are known by now to fit int32.
    traced = [
        array if isinstance(array, jax.Array) else jnp.asarray(array, jnp.int32)
        for array in arrays
    ]
    if any(_may_be_wide(array) for array in traced):
        return _ranks(traced)
    return [array.astype(jnp.int32) for array in traced]


def _may_be_wide(array: Labels) -> bool:
    """Whether the type of an array has values that int32 has not."""
    return array.dtype == object or not np.can_cast(array.dtype, np.int32)


def _is_wide(array: Labels) -> bool:
    """Whether concrete labels hold a value that int32 cannot."""
    if not _may_be_wide(array) or not array.size:
        return False
    limits, values = np.iinfo(np.int32), host_value(array)
    return bool(values.min() < limits.min or values.max() > limits.max)


def _codes(columns: list[list], unknown: tuple[int | str, ...]) -> list[jax.Array]:
    """Codes from 0 on, one for each value in all columns; -1 for the `unknown` ones."""
    code: dict[object, int] = dict.fromkeys(unknown, -1)
    first = len(code)
    found = [[code.setdefault(v, len(code) - first) for v in c] for c in columns]
    return [jnp.asarray(np.array(column, np.int32)) for column in found]


def _ranks(arrays: list[jax.Array]) -> list[jax.Array]:
    """Traced labels as their ranks among all of them, which int32 holds; -1 stays.

    There is no type for int64 beside uint64 and, without 64-bit mode, none for int32
    beside uint32: the sign and two words of 32 bits are compared.
    """
    keys = [jnp.concatenate(part) for part in zip(*map(_words, arrays), strict=True)]
    index = jnp.arange(keys[0].size, dtype=jnp.int32)
    *ordered, image = lax.sort((*keys, index), num_keys=3)
    other = [(key[1:] != key[:-1]).astype(jnp.int32) for key in ordered]
    rank = jnp.cumsum(other[0] | other[1] | other[2], dtype=jnp.int32)
    rank = jnp.concatenate([jnp.zeros(1, jnp.int32), rank])
    negative, high, low = keys
    unknown = (negative > 0) & (high == _ALL_BITS) & (low == _ALL_BITS)
    ids = jnp.where(unknown, -1, jnp.zeros_like(index).at[image].set(rank))
    cuts = np.cumsum([array.size for array in arrays])[:-1]
    return jnp.split(ids, cuts.tolist())


def _words(array: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether each value is negative, and its two words in 64 bits; all uint32."""
    negative = (array < 0).astype(jnp.uint32)
    if array.dtype.itemsize < 8:
        wide = array.astype(jnp.uint32 if array.dtype == jnp.uint32 else jnp.int32)
        return negative, negative * _ALL_BITS, lax.bitcast_convert_type(wide, "uint32")
    high = lax.shift_right_logical(array, jnp.asarray(32, array.dtype))
    low = array & jnp.asarray(0xFFFFFFFF, array.dtype)
    return negative, high.astype(jnp.uint32), low.astype(jnp.uint32)
