"""Ways to spoil a file: what disks, transfers and ill will do to its bytes."""

import io
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]

# What a size, an offset or a count is replaced by, in text and in bytes.
NUMBERS = (-1, 0, 1, 2**16, 2**31 - 1, -(2**31), 2**32, 2**62, 10**30)
LONGEST = 8 * 2**20

# What zipfile raises on an archive that is spoiled already.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


def _stretch(rng: np.random.Generator, content: bytes) -> slice:
    """A random piece, short more often than long."""
    start = int(rng.integers(len(content) + 1))
    length = int(len(content) ** rng.random())
    return slice(start, min(start + length, len(content)))


def flip_bits(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=int(rng.integers(1, 9))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def replace_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=int(rng.integers(1, 9))):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def cut_end(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def cut_out(rng: np.random.Generator, content: bytes) -> bytes:
    piece = _stretch(rng, content)
    return content[: piece.start] + content[piece.stop :]


def double(rng: np.random.Generator, content: bytes) -> bytes:
    piece = _stretch(rng, content)
    return content[: piece.stop] + content[piece.start :]


def zero(rng: np.random.Generator, content: bytes) -> bytes:
    piece = _stretch(rng, content)
    length = piece.stop - piece.start
    return content[: piece.start] + bytes(length) + content[piece.stop :]


def insert(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 40))) + content[place:]


def swap(rng: np.random.Generator, content: bytes) -> bytes:
    a, b = sorted((_stretch(rng, content), _stretch(rng, content)), key=_begin)
    if a.stop > b.start:
        return content[b.stop :] + content[: b.stop]
    between = content[a.stop : b.start]
    return content[: a.start] + content[b] + between + content[a] + content[b.stop :]


def _begin(piece: slice) -> int:
    return piece.start


def change_number(rng: np.random.Generator, content: bytes) -> bytes:
    """Replaces a number that is written in digits."""
    found = list(re.finditer(rb"-?\d+", content[:65536]))
    if not found:
        return change_size(rng, content)
    number = found[int(rng.integers(len(found)))]
    new = str(NUMBERS[int(rng.integers(len(NUMBERS)))]).encode()
    return content[: number.start()] + new + content[number.end() :]


def change_size(rng: np.random.Generator, content: bytes) -> bytes:
    """Replaces two, four or eight bytes by a number, as a header holds them."""
    width = (2, 4, 8)[int(rng.integers(3))]
    place = int(rng.integers(len(content)))
    value = NUMBERS[int(rng.integers(len(NUMBERS)))] % 2 ** (8 * width)
    order = "<>"[int(rng.integers(2))]
    new = struct.pack(f"{order}{' H I   Q'[width - 1]}", value)
    return content[:place] + new + content[place + width :]


def repeat(rng: np.random.Generator, content: bytes) -> bytes:
    """Writes one short piece many times: nesting, long words, many rows."""
    start = int(rng.integers(len(content)))
    piece = content[start : start + int(rng.integers(1, 9))]
    count = int(10 ** (5 * rng.random()))
    return content[:start] + piece * count + content[start:]


PLAIN: dict[str, Mutation] = {
    each.__name__: each
    for each in (
        flip_bits,
        replace_bytes,
        cut_end,
        cut_out,
        double,
        zero,
        insert,
        swap,
        change_number,
        change_size,
        repeat,
    )
}


def change_member(rng: np.random.Generator, content: bytes) -> bytes:
    """Spoils a member of a zip archive, or its place in it; checksums stay right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.filelist]
    except UNREADABLE:
        members = []
    if not members:
        return _plain(rng, content)
    which = int(rng.integers(len(members)))
    name, held = members[which]
    method = zipfile.ZIP_STORED
    match int(rng.integers(9)):
        case 0:
            del members[which]
        case 1:
            method = zipfile.ZIP_DEFLATED
        case 2:
            members[which] = (name, bytes(LONGEST))
            method = zipfile.ZIP_DEFLATED
        case 3:
            members[which] = (f"../{name}", held)
        case 4:
            members.append((name, _plain(rng, held)))
        case _:
            members[which] = (name, _plain(rng, held))
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for each in members:
            archive.writestr(*each)
    return stream.getvalue()


def _plain(rng: np.random.Generator, content: bytes) -> bytes:
    names = list(PLAIN)
    mutation = PLAIN[names[int(rng.integers(len(names)))]]
    return mutation(rng, content) if content else rng.bytes(8)


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """A file's content, spoiled in one to three ways.

    Args:
        rng: equal generators spoil alike.
        content: of a good file.
    """
    for _ in range(int(rng.integers(1, 4))):
        is_archive = content[:2] == b"PK" and rng.random() < 0.5
        content = (change_member if is_archive else _plain)(rng, content)
        content = content[:LONGEST]
    return content


def spoil(rng: np.random.Generator, path: Path) -> None:
    """Spoils a file where it lies; now and then something else takes its place."""
    content = path.read_bytes()
    other = int(rng.integers(100))
    if other > 2:
        path.write_bytes(mutate(rng, content))
        return
    path.unlink()
    if other == 0:
        path.mkdir()
    elif other == 1:
        os.mkfifo(path)
