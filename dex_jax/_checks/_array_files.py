"""Numpy's files `.npy` and `.npz`, from anybody: within limits, and no code is run."""

import ast
import os
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from dex_jax._checks._files import check_file

# An archive may hold so much in any case, and beyond that this multiple of its own
# size: deflate reaches 1000, arrays that mean something hardly 10.
_FREE_BYTES = 1 << 26
_EXPANSION = 64
EXPANSION_VARIABLE = "DEX_JAX_MAX_EXPANSION"
_MOST_MEMBERS = 4096
_LONGEST_DIRECTORY = 1 << 22
_LONGEST_END = 22 + 65535 + 76  # with a comment, and the end for 64-bit sizes
_HEADER_BYTES = 10_000  # numpy's own limit
_MAGIC = b"\x93NUMPY"
_KINDS = "biufcUS"


def read_npy(path: str | os.PathLike, what: str = "array file") -> np.ndarray:
    """Reads the array of a `.npy` file; pickled content is refused.

    The size that the header claims is compared with the file's before memory is taken.

    Args:
        path: the file.
        what: what the errors call it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the file: no plain `.npy`, damaged, cut short, longer than
            it says, Python objects, or more than the memory of this machine.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "a.npy"
        ...     np.save(path, np.arange(3.0))
        ...     read_npy(path)
        array([0., 1., 2.])
    """
    path = check_file(path, what)
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError(f"{path}: is an .npz archive; give it that ending")
        file.seek(0)
        try:
            return _read_array(file, path.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read as a plain array: {error}") from (
                None
            )


def read_npz(
    path: str | os.PathLike, what: str = "array archive"
) -> dict[str, np.ndarray]:
    """Reads every array of an `.npz` file; pickled content is refused.

    A member that expands beyond 64 MiB and 64 times the size of the file is refused
    before it is read; the environment variable `DEX_JAX_MAX_EXPANSION` sets another
    multiple.

    Args:
        path: the file.
        what: what the errors call it.

    Returns:
        The arrays by name, in the order of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the file and the member: no archive, damaged, cut short, a
            name twice, encrypted, Python objects, or beyond the limits.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "a.npz"
        ...     np.savez(path, x=np.arange(3))
        ...     read_npz(path)
        {'x': array([0, 1, 2])}
    """
    path = check_file(path, what)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            raise ValueError(f"{path}: is a single .npy array; give it that ending")
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an .npz file, or cut short")
        try:
            check_directory(file)
            return dict(_members(file, path.stat().st_size))
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{path}: {error}") from None
        except Exception as error:  # zipfile and zlib raise many kinds for damage
            raise ValueError(f"{path}: damaged or cut short: {error}") from None


def _members(file: IO[bytes], size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of an archive of `size` bytes."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_members(members, size)
        for member in members:
            name = member.filename.removesuffix(".npy")
            try:
                with archive.open(member) as stream:
                    array = _read_array(stream, member.file_size)
            except ValueError as error:
                if "Python objects" in str(error):
                    raise ValueError(
                        f"key {name!r} holds Python objects (a pickle), which are "
                        "never read; save names as unicode arrays and labels as "
                        "integers"
                    ) from None
                raise ValueError(f"key {name!r} cannot be read: {error}") from None
            yield name, array


def check_directory(file: IO[bytes]) -> None:
    """Refuses a zip archive whose list of members is long: each takes half a kilobyte.

    Raises:
        ValueError: the list takes more than 4 MiB.
    """
    end = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, end - _LONGEST_END))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    # An archive with 64-bit sizes has a second, longer end in front of this one.
    wide = tail[at - 76 : at] if at >= 76 else b""
    if wide.startswith(b"PK\6\6"):
        size = int.from_bytes(wide[40:48], "little")
    if size > _LONGEST_DIRECTORY and size <= start + at:
        raise ValueError(
            f"its list of members takes {size} bytes, at most {_LONGEST_DIRECTORY} are "
            "read"
        )
    file.seek(0)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuses what an archive says of itself, before any of it is read."""
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"holds {len(members)} members, at most {_MOST_MEMBERS} read")
    seen = set()
    for member in members:
        name = member.filename
        if not name.endswith(".npy"):
            raise ValueError(
                f"member {name[:80]!r} is no array: expected a name in .npy"
            )
        if name in seen:
            raise ValueError(f"key {name.removesuffix('.npy')!r} occurs twice")
        seen.add(name)
        if member.flag_bits & 1:
            raise ValueError(f"key {name.removesuffix('.npy')!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"key {name.removesuffix('.npy')!r} is compressed by method "
                f"{member.compress_type}; stored or deflated are read"
            )
    claimed = sum(member.file_size for member in members)
    if claimed > most_expanded(size):
        raise ValueError(
            f"a file of {size} bytes claims to hold {claimed}, more than "
            f"{_expansion():g} times as many; set {EXPANSION_VARIABLE} higher if it is "
            "to be trusted"
        )


def most_expanded(size: int) -> int:
    """How many bytes the arrays of a file of `size` bytes may take.

    Raises:
        ValueError: the environment variable holds no number from 1 on.
    """
    return int(_FREE_BYTES + _expansion() * size)


def _expansion() -> float:
    given = os.environ.get(EXPANSION_VARIABLE, str(_EXPANSION))
    try:
        multiple = float(given)
    except ValueError:
        multiple = -1.0
    if not 1 <= multiple < float("inf"):
        raise ValueError(f"{EXPANSION_VARIABLE}: expected 1 or more, got {given!r}")
    return multiple


def _read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """Reads one array in numpy's format from a stream of `size` bytes."""
    shape, fortran, dtype, header = _read_header(stream)
    count = 1
    for length in shape:
        count *= length
    claimed, there = count * dtype.itemsize, size - header
    if claimed != there:
        fault = "is cut short" if claimed > there else "holds more than it says"
        raise ValueError(
            f"{fault}: shape {shape} of {dtype} needs {claimed} bytes, {there} follow"
        )
    check_memory(claimed)
    array = np.empty(count, dtype)
    _fill(array, stream)
    if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise ValueError("holds numbers that are no truth values")
    if dtype.kind == "U":
        # Some of numpy's own functions crash on numbers that are no letters.
        points = array.view(dtype.str[0] + "u4")
        if (points > 0x10FFFF).any():
            raise ValueError("holds numbers that are no Unicode letters")
    return array.reshape(shape, order="F" if fortran else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Reads shape, order, dtype and the number of bytes before the values."""
    start = stream.read(8)
    if len(start) < 8 or not start.startswith(_MAGIC):
        raise ValueError("it is no array in numpy's format")
    version = tuple(start[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its version is {version[0]}.{version[1]}, unknown here")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes, at most {_HEADER_BYTES}")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("its header is cut short")
    try:
        found = ast.literal_eval(text.decode("latin1" if version[0] < 3 else "utf8"))
        descr, fortran, shape = (
            found.pop(name) for name in ("descr", "fortran_order", "shape")
        )
        if found or type(fortran) is not bool or type(shape) is not tuple:
            raise ValueError
        if any(type(length) is not int or length < 0 for length in shape):
            raise ValueError
        dtype = np.dtype(descr) if type(descr) is str else np.dtype(list(descr))
    except Exception:  # whatever the parser of literals makes of damaged text
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects (a pickle), which are never read")
    if dtype.kind not in _KINDS or (dtype.kind in "US" and not dtype.itemsize):
        raise ValueError(f"its dtype {dtype} is none of numbers, truth values or words")
    if len(shape) > 32:
        raise ValueError(f"it has {len(shape)} dimensions, at most 32 are read")
    return shape, fortran, dtype, 8 + width + length


def check_memory(claimed: int) -> None:
    """Refuses a number of bytes that this machine does not have."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if claimed > most:
        raise ValueError(f"it needs {claimed} bytes, this machine has {most}")


def _fill(array: np.ndarray, stream: IO[bytes], *, step: int = 1 << 20) -> None:
    """Reads an array's bytes in small parts, with no second copy of it."""
    if array.size:
        target = array.view(np.uint8)
        done = 0
        while done < len(target):
            part = stream.read(min(step, len(target) - done))
            if not part:
                raise ValueError(f"is cut short: {len(target)} bytes, {done} follow")
            target[done : done + len(part)] = np.frombuffer(part, np.uint8)
            done += len(part)
    # The end of a zip's member is where its checksum is compared.
    if stream.read(1):
        raise ValueError("holds more than it says")
