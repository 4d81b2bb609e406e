"""What image files hold, in sixteen bytes each.

A data set is known by the bytes of its files: sizes stay the same where a picture is
replaced, and times differ where a set is copied. To read a large set takes minutes on
a slow disk, so what was read is remembered, until a file is touched.
"""

import contextlib
import hashlib
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
    place = _place(files.root) if len(files) >= _WORTH_KEEPING else None
    known = {} if place is None else _remembered(place)
    fresh: dict[bytes, bytes] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(
            lambda i: _digest(files.path(i), known, fresh), range(len(files))
        )
        shown = show_progress(found, len(files), "reading images")
        digests = b"".join(shown)
    if place is not None and fresh:
        _remember(place, fresh if len(known) > _MOST_KEPT else known | fresh)
    return digests


def _digest(path: Path, known: dict[bytes, bytes], fresh: dict[bytes, bytes]) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _NOTHING
        version = (
            os.path.abspath(path),
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        key = _short(repr(version).encode())
        found = known.get(key) or fresh.get(key)
        if found is None:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").digest()[:_BYTES]
            if abs(time.time() - status.st_ctime) > _SETTLED_SECONDS:
                fresh[key] = found
    except (OSError, ValueError):  # absent, not to be read, or no name of a file
        return _NOTHING
    return found


def _short(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_BYTES]


def _place(root: Path) -> Path:
    cache = os.environ.get("DEX_JAX_DATA") or Path.home() / ".cache/dex_jax"
    name = _short(os.fsencode(os.path.abspath(root))).hex()
    return Path(cache) / "contents" / name


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
