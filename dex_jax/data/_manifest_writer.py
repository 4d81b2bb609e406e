"""A manifest from the file names of a folder."""

import csv
import re
from pathlib import Path

from dex_jax.data._manifest_table import COLUMNS, SPLITS
from dex_jax.data._problems import Problems

_SUFFIXES = (".jpeg", ".jpg", ".png")


def write_manifest(
    folder: str | Path, out: str | Path, *, patterns: dict[str, str]
) -> tuple[int, int]:
    r"""Writes a manifest from the names of the images in a folder.

    Args:
        folder: searched with its sub-folders for .jpeg, .jpg and .png files.
        out: the table to write. Paths in it start from its own folder where that holds
            `folder`, and else from `folder` (then give `image_root` on loading).
        patterns: for each split (train, query, gallery) a regular expression for the
            whole path below `folder`, written with `/`. Its named groups are the
            columns: identity, camera, tracklet, domain.

    Returns:
        How many rows were written, and how many images match no pattern.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown split, a bad pattern, an image that matches two patterns
            or none that matches any.

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
    expressions = {split: _compile(split, text) for split, text in patterns.items()}
    base = out.parent.resolve()
    inside = folder.resolve().is_relative_to(base)
    problems = Problems(f"folder {folder}")
    table, left_over = [], 0
    for file in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES):
        name = file.relative_to(folder).as_posix()
        matches = {s: m for s, e in expressions.items() if (m := e.fullmatch(name))}
        if len(matches) > 1:
            problems.add(f"matches {' and '.join(matches)}", folder, value=name)
        elif not matches:
            left_over += 1
        for split, match in matches.items():
            stored = file.resolve().relative_to(base).as_posix() if inside else name
            row = {"path": stored, "split": split} | match.groupdict(default="")
            table.append([row.get(column, "") for column in COLUMNS])
    problems.check()
    if not table:
        raise ValueError(
            f"folder {folder}: none of its {left_over} images matches a pattern"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *table])
    return len(table), left_over


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
