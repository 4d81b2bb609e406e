"""Labels of a file's two sides: whole numbers, or words that get numbers here."""

from collections.abc import Mapping, Sequence

import numpy as np

from dex_jax._checks import JUNK, alike, read_label, warn_user


def read_labels(
    given: Mapping[str, object], sizes: Sequence[int]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads labels of one kind as int64, -1 for none.

    Whole floats are whole numbers and NaN is none, as in a column of pandas with gaps.
    Words are read as in a manifest ("3.0" is 3, "nan" is none) and get the numbers 0,
    1, ... in their order, the same on both sides.

    Args:
        given: the labels of the query side and of the gallery side, by their names.
        sizes: Q and G.

    Returns:
        The labels by name, and the words by number; none where they were numbers.

    Raises:
        ValueError: naming the labels: another shape, a number below -1, a fraction,
            neither numbers nor words, or words on one side alone.
    """
    columns = {
        name: _read_column(values, name, size)
        for (name, values), size in zip(given.items(), sizes, strict=True)
    }
    worded = [name for name, column in columns.items() if column.dtype == object]
    numbered = [name for name in columns if name not in worded]
    if not worded:
        return columns, ()
    if numbered:
        raise ValueError(
            f"{worded[0]}: holds words and {numbered[0]} numbers; labels that are "
            "compared must be of one kind"
        )
    words = sorted({word for column in columns.values() for word in column} - {""})
    if twins := alike(words):
        warn_user(f"{worded[0]}: {twins} may be meant as one label; write it alike")
    code = {"": -1, **{word: number for number, word in enumerate(words)}}
    coded = {
        name: np.array([code[word] for word in column], np.int64)
        for name, column in columns.items()
    }
    return coded, tuple(words)


def _read_column(values: object, name: str, size: int) -> np.ndarray:
    """Whole numbers as int64 `[size]`, or words as objects, "" for none."""
    array = np.asarray(values)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    if array.dtype.kind in "USTO":
        array = _read_words(array.tolist(), name)
        if array.dtype == object:
            return array
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: expected whole numbers or words, got dtype {array.dtype}"
        )
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), -1, array)
        _refuse(array, array != np.floor(array), name, "expected a whole number")
        # From there on a type leaves numbers out, and two vehicles may become one.
        digits = min(np.finfo(array.dtype).nmant + 1, 63)
        expected = f"expected less than 2^{digits} in {array.dtype}; save integers"
        _refuse(array, array >= 2.0**digits, name, expected)
    else:
        _refuse(array, array >= 2**63, name, "expected less than 2^63")
    _refuse(array, array < -1, name, "expected -1 (none) or more")
    return array.astype(np.int64)


def _refuse(array: np.ndarray, bad: np.ndarray, name: str, expected: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name}: row {row} is {array[row]}; {expected}")


def _read_words(values: list, name: str) -> np.ndarray:
    """Words as objects; numbers among objects as numbers."""
    if all(_is_number(value) or value is None for value in values):
        return np.array([np.nan if value is None else value for value in values])
    found = np.empty(len(values), object)
    for row, value in enumerate(values):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        if value is None or (isinstance(value, float) and np.isnan(value)):
            value = ""
        if not isinstance(value, str):
            raise ValueError(
                f"{name}: row {row} is {value!r} beside words; expected one kind"
            )
        word = read_label(value)
        found[row] = "" if word == JUNK else word
    return found


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool)
