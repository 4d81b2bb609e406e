"""MATLAB 5 files: full arrays of numbers, read here since others crash on damage.

Source: "MAT-File Format", MathWorks, version 5: a header of 128 bytes, then elements,
each a tag (type, number of bytes) and its data in multiples of 8 bytes.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dex_jax._checks import (
    EXPANSION_VARIABLE,
    check_file,
    check_memory,
    most_expanded,
)

_HEADER = 128
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8",
    12: "i8", 13: "u8", 16: "u1", 17: "u2", 18: "u4",
}  # fmt: skip
_MATRIX, _COMPRESSED, _INT32, _INT8, _UINT32 = 14, 15, 5, 1, 6
_NUMBERS = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4",
    14: "i8", 15: "u8",
}  # fmt: skip
_OTHERS = {
    1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse array",
    16: "a function", 17: "an object",
}  # fmt: skip
_COMPLEX = 0x08
_BEYOND = (
    "its arrays expand beyond what a file of its size should hold; set "
    f"{EXPANSION_VARIABLE} higher if it is to be trusted"
)


class Other(NamedTuple):
    """What stands in a file in place of a full array of real numbers."""

    kind: str


def read_mat(path: str | os.PathLike) -> dict[str, np.ndarray | Other]:
    """Reads the arrays of a MATLAB 5 file.

    Args:
        path: the `.mat` file.

    Returns:
        Arrays of real numbers by name; for text, cells, structures, sparse, complex
        and empty-named ones an `Other` that says what it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the file: another version, damaged, cut short, or beyond
            the limits.
    """
    path = check_file(path, ".mat file")
    found: dict[str, np.ndarray | Other] = {}
    try:
        check_memory(path.stat().st_size)
        content = path.read_bytes()
        order = _byte_order(content)
        budget = most_expanded(len(content))
        for kind, data in _elements(memoryview(content)[_HEADER:], order):
            if kind == _COMPRESSED:
                inflated = _inflate(data, budget)
                budget -= len(inflated)
                kind, data = next(_elements(memoryview(inflated), order), (0, data))
            if kind != _MATRIX:
                raise ValueError(f"an element of type {kind} in place of an array")
            name, value = _matrix(data, order, budget)
            budget -= value.nbytes if isinstance(value, np.ndarray) else 0
            if name in found:
                raise ValueError(f"{name!r} occurs twice")
            # MATLAB writes an array without a name for its own use.
            if name:
                found[name] = value
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as MATLAB 5: {error}") from None
    return found


def _byte_order(content: bytes) -> str:
    if content.startswith(b"MATLAB 7.3") or content[:8] == b"\x89HDF\r\n\x1a\n":
        raise ValueError("it is MATLAB 7.3 (HDF5); save it with -v7, or as .npy")
    marks = {b"IM": "<", b"MI": ">"}
    if len(content) < _HEADER or content[126:128] not in marks:
        raise ValueError("it has no header of that format")
    order = marks[content[126:128]]
    (version,) = struct.unpack(order + "H", content[124:126])
    if version != 0x0100:
        raise ValueError(f"its version is {version:#06x}, expected 0x0100")
    return order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yields the type and the data of each element."""
    while len(data):
        if len(data) < 8:
            raise ValueError("cut short")
        kind, size = struct.unpack(order + "II", data[:8])
        if kind >> 16:  # up to four bytes of data stand in the tag itself
            kind, size, start, step = kind & 0xFFFF, kind >> 16, 4, 8
            if size > 4:
                raise ValueError(f"a short element claims {size} bytes")
        else:
            # Only compressed elements are not filled up to 8 bytes.
            filled = size if kind == _COMPRESSED else -(-size // 8) * 8
            start, step = 8, 8 + filled
        if start + size > len(data):
            raise ValueError(f"cut short: {size} bytes, {len(data) - start} follow")
        yield kind, data[start : start + size]
        data = data[step:]


def _inflate(data: memoryview, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from None
    if len(inflated) > most:
        raise ValueError(_BEYOND)
    if not inflater.eof:
        raise ValueError("a compressed array is cut short")
    return inflated


def _matrix(data: memoryview, order: str, most: int) -> tuple[str, np.ndarray | Other]:
    """Reads one array of at most so many bytes: flags, sizes, name, real part."""
    parts = _elements(data, order)
    kind, flags = next(parts, (0, data))
    if kind != _UINT32 or len(flags) != 8:
        raise ValueError("an array without its flags")
    (word,) = struct.unpack(order + "I", flags[:4])
    group, marks = word & 0xFF, word >> 8 & 0xFF
    if group == 17:  # an object of a class of the user's, which has no sizes
        return "", Other(_OTHERS[group])
    kind, sizes = next(parts, (0, data))
    if kind != _INT32 or len(sizes) % 4 or not 8 <= len(sizes) <= 128:
        raise ValueError("an array without its sizes")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise ValueError(f"an array of shape {shape}")
    kind, letters = next(parts, (0, data))
    if kind != _INT8:
        raise ValueError("an array without its name")
    name = bytes(letters).decode("latin1")
    if group not in _NUMBERS:
        if group not in _OTHERS:
            raise ValueError(f"{name!r} is of class {group}, unknown here")
        return name, Other(_OTHERS[group])
    if marks & _COMPLEX:
        return name, Other("complex")
    kind, values = next(parts, (0, data))
    if kind not in _STORED:
        raise ValueError(f"{name!r} has values of type {kind}")
    stored, dtype = np.dtype(order + _STORED[kind]), np.dtype(_NUMBERS[group])
    if len(values) // stored.itemsize * dtype.itemsize > most:
        raise ValueError(_BEYOND)
    return name, _numbers(values, stored, shape, dtype, name)


def _numbers(
    values: memoryview,
    stored: np.dtype,
    shape: tuple[int, ...],
    dtype: np.dtype,
    name: str,
) -> np.ndarray:
    """Returns the values `[shape]`; MATLAB stores whole numbers in the least bytes."""
    count = 1
    for size in shape:
        count *= size
    if count * stored.itemsize != len(values):
        raise ValueError(
            f"{name!r} of shape {shape} has {len(values)} bytes of {stored}"
        )
    array = np.frombuffer(values, stored).astype(dtype)
    return array.reshape(shape, order="F")
