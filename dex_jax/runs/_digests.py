"""What the files of a checkpoint held when it was written.

No format below notices each damage itself: a turned bit of a number is another number.
"""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from dex_jax._checks import check_file, read_json, whole_file

DIGESTS = "digests.json"
_WHAT = "list of a checkpoint's files"


def write_digests(folder: str | os.PathLike) -> None:
    """Writes down the size and the SHA-256 of each file in the folders of `folder`."""
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    _write(folder, {p.relative_to(folder).as_posix(): _digest(p) for p in files})


def add_digests(folder: str | os.PathLike) -> None:
    """Adds the files beside those folders, which change until a save is over."""
    folder = Path(folder)
    written = read_json(folder / DIGESTS, _WHAT)
    for path in folder.iterdir():
        if path.is_file() and path.name != DIGESTS and not path.name.startswith("."):
            written[path.name] = _digest(path)
    _write(folder, written)


def _write(folder: Path, digests: dict[str, Any]) -> None:
    with whole_file(folder / DIGESTS) as partial:
        partial.write_text(json.dumps(digests))


def check_digests(folder: str | os.PathLike) -> bool:
    """Compares the files of a folder with what `write_digests` wrote down.

    Returns:
        Whether there was something to compare with: older checkpoints have no digests.

    Raises:
        FileNotFoundError, ValueError: a file is gone or is not what was written.
    """
    folder = Path(folder)
    if not os.path.lexists(folder / DIGESTS):
        return False
    written = read_json(folder / DIGESTS, _WHAT)
    for name, digest in written.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise ValueError(f"{folder / DIGESTS}: {name!r} lies elsewhere")
        path = check_file(folder / place, "file of a checkpoint")
        if _digest(path) != digest:
            raise ValueError(f"{name} does not match its checksum")
    return True


def _digest(path: Path) -> list[int | str]:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return [handle.tell(), digest]
