"""The place of a report: what may be replaced there, and how."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from dex_jax._checks import check_new_file, check_parents

PAGE, FIGURES_FILE, QUERIES_FILE = "index.html", "report.json", "queries.csv"
# What `report.json` says of its origin, and what it held before it said so.
WRITTEN_BY = "dex_jax report 1"
_EARLIER_KEYS = {"title", "protocol", "sizes", "notes", "results", "versions"}
# Every name that a report holds. What has another name is somebody else's.
_NAMES = re.compile(
    r"report\.json|queries\.csv|index\.html"
    r"|(map|cmc|errors|cameras|sweep|ranks|explain_(\d{6}|[1-9]\d{6,}))\.(png|pdf)",
    re.ASCII,
)
_LARGEST = 2**28  # bytes of a `report.json` that is read
_LONGEST = 150  # bytes of a name that hidden names repeat; a name may have 255
_SHOWN = 5


def check_folder(folder: str | os.PathLike, *, force: bool = False) -> Path:
    """Tells before any work whether a report may be written there.

    What a writer left beside it that was killed is cleared away; if it was killed while
    it replaced a report, the old one gets its name back.

    Raises:
        FileExistsError: there is a report and `force` is not given, or there is
            something else, also beside a report, which is never replaced.
        NotADirectoryError: it would lie below a file.
        PermissionError: nothing may be written there.
        ValueError: a path without a name, such as `.`.
    """
    folder = Path(folder)
    if folder.name in ("", ".."):
        raise ValueError(f"report: expected the name of a folder, got {str(folder)!r}")
    check_parents(folder, "report")
    if folder.is_symlink():
        raise FileExistsError(
            f"{folder}: is a link, which is not replaced; give the folder itself"
        )
    if folder.parent.exists():
        with _in_turn(folder.parent):
            _check_place(folder, force)
    return folder


def _check_place(folder: Path, force: bool) -> None:
    _clear_leftovers(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(
            f"{folder}: exists and is no report; choose another --out"
        )
    names = os.listdir(folder)
    foreign = _foreign(folder)
    if names and not _is_report(folder):
        raise FileExistsError(
            f"{folder}: exists and is no report of dex_jax; it holds "
            f"{_listed(foreign or sorted(names))}; choose another --out"
        )
    if names and not force:
        raise FileExistsError(
            f"{folder}: holds a report; --force replaces it, --out writes elsewhere"
        )
    if foreign:
        raise FileExistsError(
            f"{folder}: holds other things too, which --force does not replace: "
            f"{_listed(foreign)}; choose another --out"
        )


def check_file(path: Path, name: str, *, suffix: str = "", force: bool = False) -> None:
    """Tells before any work whether a file may be written there.

    Args:
        path: the file.
        name: what errors call it.
        suffix: what the file's name must end in.
        force: replace a file that is there.

    Raises:
        FileExistsError: a file is there, and `force` is not given.
        IsADirectoryError: a folder is there.
        NotADirectoryError: it would lie below a file.
        PermissionError: its folder takes no new files.
        ValueError: another ending, or a link, a pipe or a device is there.
    """
    if suffix and path.suffix != suffix:
        raise ValueError(f"{name}: expected a name ending in {suffix}, got {path}")
    check_new_file(path, name, replace=force)


def check_apart(outputs: Mapping[str, Path]) -> None:
    """Refuses outputs of which one would stand in the place of another or inside it.

    Args:
        outputs: the flag and the path of each.

    Raises:
        ValueError: naming two flags.

    Example:
        >>> check_apart({"--out": Path("a"), "--export": Path("a.npz")})
        >>> check_apart({"--out": Path("a"), "--export": Path("a/b.npz")})
        Traceback (most recent call last):
        ...
        ValueError: --export: a/b.npz lies in --out, a; give each its own place
    """
    places = {name: Path(os.path.realpath(path)) for name, path in outputs.items()}
    for name, place in places.items():
        for other, theirs in places.items():
            if name != other and place.is_relative_to(theirs):
                raise ValueError(
                    f"{name}: {outputs[name]} lies in {other}, {outputs[other]}; give "
                    "each its own place"
                )


@contextlib.contextmanager
def whole_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Lends a folder beside `folder` that takes its place at the end.

    After an error the old folder stands as it was and nothing else is left. It is out
    of its place only for the moment between two renamings; a process that is killed
    just then leaves it under a name that `check_folder` finds.

    Args:
        folder: where the finished report goes.
        force: whether a report that is there may be replaced.

    Raises:
        FileExistsError: see `check_folder`.
    """
    check_folder(folder, force=force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(folder, "new")
    try:
        with contextlib.ExitStack() as held:
            with _in_turn(folder.parent):
                partial.mkdir()
                held.enter_context(_locked(partial))
            yield partial
            # Hours may have passed, in which others have written there.
            with _in_turn(folder.parent):
                _check_place(folder, force)
                _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, folder: Path) -> None:
    if not folder.exists() or not os.listdir(folder):
        os.rename(partial, folder)
        return
    backup = _beside(folder, "old")
    with _locked(folder):
        os.rename(folder, backup)
        try:
            if foreign := _foreign(backup):
                raise FileExistsError(f"{folder}: now holds {_listed(foreign)} too")
            os.rename(partial, folder)
        except BaseException:
            os.rename(backup, folder)
            raise
        _remove(backup)


def _beside(folder: Path, end: str) -> Path:
    """A name that nobody has, in the folder's own folder."""
    return folder.with_name(f".{_stem(folder)}.{secrets.token_hex(8)}.{end}")


def _stem(folder: Path) -> str:
    name = os.fsencode(folder.name)
    if len(name) <= _LONGEST:
        return folder.name
    return hashlib.sha256(name).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Locks a folder for as long as the block and this process last.

    The lock stays with the folder when it gets another name. Yields whether it was
    free; on a file system without locks it never is.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
    finally:
        os.close(handle)


@contextlib.contextmanager
def _in_turn(parent: Path) -> Iterator[None]:
    """Lets one process at a time look at the reports in a folder and rename them.

    Without it, one that ends while another is between its two renamings would find no
    report, or half of one, and lose its own. On a file system without locks all go on.
    """
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(parent, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _clear_leftovers(folder: Path) -> None:
    """Puts back or clears away what killed processes left beside a folder."""
    form = re.compile(rf"\.{re.escape(_stem(folder))}\.[0-9a-f]{{16}}\.(new|old)")
    with contextlib.suppress(OSError):  # what cannot be cleared stays
        left = [n for n in os.listdir(folder.parent) if form.fullmatch(n)]
        for leftover in (folder.with_name(name) for name in sorted(left)):
            if leftover.is_symlink() or not leftover.is_dir():
                continue
            with _locked(leftover) as free:
                if not free:  # its writer lives
                    continue
                # An old report that was being removed is no whole one.
                if leftover.name.endswith(".new") or not _is_report(leftover):
                    _remove(leftover)
                elif not os.path.lexists(folder):
                    os.rename(leftover, folder)
                elif _is_report(folder):
                    _remove(leftover)


def _remove(folder: Path) -> None:
    """Removes the files of a report, and the folder unless it holds others."""
    names = set(os.listdir(folder)) - set(_foreign(folder))
    # First the file without which it is no report.
    for name in sorted(names, key=lambda name: name != FIGURES_FILE):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _foreign(folder: Path) -> list[str]:
    """What a folder holds that no report holds."""
    return sorted(
        name
        for name in os.listdir(folder)
        if not _NAMES.fullmatch(name) or not _is_plain(folder / name)
    )


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _is_report(folder: Path) -> bool:
    """Whether a folder's `report.json` is one that we wrote."""
    file = folder / FIGURES_FILE
    try:
        if not _is_plain(file) or file.stat().st_size > _LARGEST:
            return False
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    if found.get("written_by") == WRITTEN_BY:
        return True
    versions = found.get("versions")
    if not isinstance(versions, dict):
        return False
    return "dex_jax" in versions and found.keys() >= _EARLIER_KEYS


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
