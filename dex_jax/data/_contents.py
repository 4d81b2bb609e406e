"""What image files hold, in sixteen bytes each.

A data set is known by the bytes of its files: sizes stay the same where a picture is
replaced, and times differ where a set is copied. To read a large set takes minutes on
a slow disk, so what was read is remembered, until a file is touched.
"""

import contextlib
import hashlib
import itertools
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dex_jax._checks import whole_file
from dex_jax.data._images import ImageFiles, show_progress

_BYTES = 16
_NOTHING = bytes(_BYTES)
# Smaller sets are read in a moment each time.
_WORTH_KEEPING = 2_000
# Files that a thread takes at a time.
_AT_ONCE = 64
# Clocks of file systems are coarse: a file may change twice in one of their ticks.
_SETTLED_SECONDS = 2.0
# A place that has seen more versions than these forgets the old ones.
_MOST_KEPT = 4_000_000


def read_contents(files: ImageFiles) -> bytes:
    """Returns the digests of N files, one after the other, 16 bytes each.

    They follow from the content alone, so that a copy of a set has the same. In sets
    of 2,000 files and more, one that was read before is not read again while its path,
    size, inode and times of modification and of change (mtime, ctime) are the same;
    `os.utime` cannot set the last of these. The digests are kept under `DEX_JAX_DATA`,
    by default `~/.cache/dex_jax`, where that can be written.

    Args:
        files: N files; one that cannot be read has sixteen zeros.
    """
    root = os.path.abspath(files.root)
    place = _place(root) if len(files) >= _WORTH_KEEPING else None
    known = {} if place is None else _remembered(place)
    fresh: dict[bytes, bytes] = {}

    def some(start: int) -> list[bytes]:
        names = files.names[start : start + _AT_ONCE]
        return [_digest(os.path.join(root, name), known, fresh) for name in names]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(some, range(0, len(files), _AT_ONCE))
        found = itertools.chain.from_iterable(parts)
        digests = b"".join(show_progress(found, len(files), "reading images"))
    if place is not None and fresh:
        _remember(place, fresh if len(known) > _MOST_KEPT else known | fresh)
    return digests


def _digest(path: str, known: dict[bytes, bytes], fresh: dict[bytes, bytes]) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _NOTHING
        version = (
            path,
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        key = _short(repr(version).encode())
        found = known.get(key) or fresh.get(key)
        if found is None:
            with open(path, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").digest()[:_BYTES]
            if abs(time.time() - status.st_ctime) > _SETTLED_SECONDS:
                fresh[key] = found
    except (OSError, ValueError):  # absent, not to be read, or no name of a file
        return _NOTHING
    return found


def _short(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_BYTES]


def _place(root: str) -> Path:
    cache = os.environ.get("DEX_JAX_DATA") or Path.home() / ".cache/dex_jax"
    return Path(cache) / "contents" / _short(os.fsencode(root)).hex()


def _remembered(place: Path) -> dict[bytes, bytes]:
    """What is kept; nothing where the file is absent or damaged."""
    try:
        raw = place.read_bytes()
    except OSError:
        return {}
    records = raw[_BYTES:]
    if raw[:_BYTES] != _short(records):
        return {}
    at = range(0, len(records), 2 * _BYTES)
    return {records[i : i + _BYTES]: records[i + _BYTES : i + 2 * _BYTES] for i in at}


def _remember(place: Path, records: dict[bytes, bytes]) -> None:
    content = b"".join(key + value for key, value in records.items())
    with contextlib.suppress(OSError), whole_file(place) as partial:
        partial.write_bytes(_short(content) + content)
