"""A manifest from the file names of a folder."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from dex_jax._checks import check_new_file, whole_file
from dex_jax.data._decode import is_picture
from dex_jax.data._manifest_table import COLUMNS, SPLITS
from dex_jax.data._problems import Problems

# Names that links may give to one folder; links to links could give it millions.
_MOST_NAMES = 100


def write_manifest(
    folder: str | Path,
    out: str | Path,
    *,
    patterns: dict[str, str],
    force: bool = False,
    say: Callable[[str], object] = print,
) -> tuple[int, int]:
    r"""Writes a manifest from the names of the images in a folder.

    Files and folders whose name begins with a dot are left out, such as the `._7.jpg`
    that macOS puts beside `7.jpg`. Links are followed and keep their names.

    Args:
        folder: searched with its sub-folders for images, by the endings of all formats
            that are read.
        out: the table to write. Paths in it start from its own folder where that holds
            `folder`, and else from `folder` (then give `image_root` on loading).
        patterns: for each split (train, query, gallery) a regular expression for the
            whole path below `folder`, written with `/`. Its named groups are the
            columns: identity, camera, tracklet, domain.
        force: replace a table that is there.
        say: where a line about hidden images goes.

    Returns:
        How many rows were written, and how many images match no pattern.

    Raises:
        FileExistsError: `out` is there, and `force` is not given.
        FileNotFoundError: no such folder.
        ValueError: an unknown split, a bad pattern, an image that matches two patterns
            or none that matches any, a name that is not UTF-8; nothing is written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("7_c1.jpg", "7_c2.jpg", "notes.png"):
        ...     _ = (folder / name).write_bytes(b"")
        >>> name = r"(?P<identity>\d+)_c(?P<camera>{})\.jpg"
        >>> write_manifest(folder, folder / "manifest.csv", patterns={
        ...     "query": name.format(1), "gallery": name.format(2)})
        (2, 1)
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if out.suffix == ".parquet":
        raise ValueError(f"out: is written as CSV, expected another ending: {out}")
    check_new_file(out, "out", replace=force)
    expressions = {split: _compile(split, text) for split, text in patterns.items()}
    prefix = _way(folder, out.parent)
    problems = Problems(f"folder {folder}")
    table: list[list[str]] = []
    left_over, hidden = 0, []
    for name in sorted(_images(folder)):
        if any(part.startswith(".") for part in name.split("/")):
            hidden.append(name)
            continue
        matches = {s: m for s, e in expressions.items() if (m := e.fullmatch(name))}
        if len(matches) > 1:
            problems.add(f"matches {' and '.join(matches)}", folder, value=name)
        elif not matches:
            left_over += 1
        elif not _is_utf8(name):
            problems.add("name is not UTF-8", folder, value=name)
        for split, match in matches.items():
            stored = (prefix / name).as_posix()
            row = {"path": stored, "split": split} | match.groupdict(default="")
            table.append([row.get(column, "") for column in COLUMNS])
    problems.check()
    if hidden:
        say(f"{len(hidden):,} hidden images are left out, first {hidden[0]!r}")
    if not table:
        raise ValueError(
            f"folder {folder}: none of its {left_over} images matches a pattern"
        )
    _write(out, table, force=force)
    return len(table), left_over


def _write(out: Path, table: list[list[str]], *, force: bool) -> None:
    # The writer takes a carriage return within a name for an ordinary letter, the
    # reader takes it for the end of a line unless it is quoted.
    odd = any("\r" in field for row in table for field in row)
    quoting = csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL
    with (
        whole_file(out, replace=force) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n", quoting=quoting)
        writer.writerows([COLUMNS, *table])


def _images(folder: Path) -> Iterator[str]:
    """The images below a folder by their paths with `/`, in no order.

    A link back to a folder that it lies in is not followed: it has no end.
    """
    names: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[str, str, frozenset]] = [(os.fspath(folder), "", frozenset())]
    while waiting:
        path, below, above = waiting.pop()
        found = os.stat(path)
        place = (found.st_dev, found.st_ino)
        if place in above:
            continue
        names[place] += 1
        if names[place] > _MOST_NAMES:
            raise ValueError(
                f"folder {folder}: links give {below!r} more than {_MOST_NAMES} names"
            )
        with os.scandir(path) as entries:
            for entry in entries:
                if os.path.isdir(entry.path):
                    inside = f"{below}{entry.name}/"
                    waiting.append((entry.path, inside, above | {place}))
                elif is_picture(entry.name):
                    yield below + entry.name


def _way(folder: Path, base: Path) -> PurePath:
    """The path from one folder down to another by its own names; empty if not below."""
    for absolute in (os.path.abspath, os.path.realpath):
        top, place = Path(absolute(base)), Path(absolute(folder))
        # Without links resolved, `..` may name another folder than the system does.
        if place.is_relative_to(top) and _same(top, base) and _same(place, folder):
            return place.relative_to(top)
    return PurePath()


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _compile(split: str, pattern: str) -> re.Pattern[str]:
    if split not in SPLITS:
        raise ValueError(f"patterns: {split!r} is no split, expected one of {SPLITS}")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"patterns: {pattern!r} ({split}) is no regular expression: {error}"
        ) from None
    columns = COLUMNS[2:]
    unknown = sorted(set(expression.groupindex) - set(columns))
    if unknown:
        raise ValueError(
            f"patterns: {pattern!r} ({split}) names {', '.join(unknown)}; groups must "
            f"be among {', '.join(columns)}"
        )
    return expression
