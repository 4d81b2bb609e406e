"""Descriptors kept on disk, found again by what they were made of."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dex_jax._checks import read_npz, whole_file

# What may change a descriptor of the same weights and image files: decoding, resizing,
# normalising and the network. A changed line there makes all cached ones old.
CODE = (
    "_checks",
    "data/_decode.py",
    "data/_images.py",
    "evaluation/_extraction.py",
    "models",
    "pipeline/_augment.py",
    "pipeline/_batches.py",
    "runs/_build.py",
    "runs/_load.py",
    "training/_network.py",
)


class Descriptors(NamedTuple):
    """What the network says of N images at one scale.

    Attributes:
        features: `[N, D]` float32, rows of unit length.
        seconds: how long the network took, decoding and compiling included.
        reused: whether they came from the cache.
    """

    features: np.ndarray
    seconds: float
    reused: bool


class Cache:
    """Descriptors on disk, found by what they were made of.

    The file name is a hash of weights, data, image names, size, flip and code, so an
    old file is never taken for a new one; the content carries a checksum, so a damaged
    file is reported and made anew.

    Args:
        folder: made when the first file is written.
        say: where one line goes each time a file is reused or found damaged.

    Example:
        >>> import tempfile, numpy as np
        >>> made = lambda: Descriptors(np.eye(2, dtype=np.float32), 1.5, False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = Cache(folder, say=lambda line: None)
        ...     first, again = cache.get({"n": 1}, made), cache.get({"n": 1}, made)
        >>> first.reused, again.reused, again.seconds
        (False, True, 1.5)
    """

    def __init__(
        self, folder: str | os.PathLike, *, say: Callable[[str], object] = print
    ):
        self._folder = Path(folder)
        self._say = say

    def get(
        self, key: Mapping[str, Any], compute: Callable[[], Descriptors]
    ) -> Descriptors:
        """Returns what is kept under `key`, or computes and keeps it."""
        text = json.dumps(dict(key), sort_keys=True)
        path = self._folder / f"{digest(text.encode())}.npz"
        if os.path.lexists(path):
            try:
                found = _read_cached(path, text)
            except (ValueError, OSError) as error:
                self._say(f"cache {path} is damaged ({error}); describing again")
            else:
                self._say(f"reusing {len(found.features)} descriptors from {path}")
                return found
        made = compute()
        try:
            with whole_file(path) as partial:
                np.savez(
                    partial,
                    key=np.array(text),
                    features=made.features,
                    checksum=np.array(_checksum(made.features)),
                    seconds=np.array(made.seconds),
                )
        except OSError as error:  # descriptors of hours are not lost to a full disk
            self._say(f"cache {path} is not written ({error}); going on without it")
        return made


def _read_cached(path: Path, text: str) -> Descriptors:
    arrays = read_npz(path)
    missing = {"key", "features", "checksum", "seconds"} - arrays.keys()
    if missing:
        raise ValueError(f"it lacks {min(missing)!r}")
    features, seconds = arrays["features"], arrays["seconds"]
    if str(arrays["key"]) != text:
        raise ValueError("it belongs to another key")
    if str(arrays["checksum"]) != _checksum(features):
        raise ValueError("its content does not match its checksum")
    if features.ndim != 2 or seconds.shape or seconds.dtype.kind != "f":
        raise ValueError("it holds other arrays than descriptors and their seconds")
    return Descriptors(features, float(seconds), reused=True)


def _checksum(features: np.ndarray) -> str:
    """Of the values, and of how they are to be read."""
    kind = f"{features.dtype.str} {features.shape} ".encode()
    return digest(kind + features.tobytes())


def code_version(package: Path = Path(__file__).parents[1]) -> str:
    """A hash of the source files that descriptors depend on.

    Args:
        package: the folder of `dex_jax`.

    Raises:
        FileNotFoundError: one of the files is not there.
    """
    found = hashlib.sha256()
    for name in CODE:
        path = package / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            content = source.read_bytes()
            # The name and the length keep a line from moving between files unseen.
            place = source.relative_to(package).as_posix()
            found.update(f"{place} {len(content)} ".encode() + content)
    return found.hexdigest()[:24]


def digest(content: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(content).hexdigest()[:24]
