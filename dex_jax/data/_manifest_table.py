"""The table of a manifest: its lines, judged one by one."""

import csv
import io
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from dex_jax._checks import JUNK, read_label
from dex_jax.data._hold_out import REAL
from dex_jax.data._label_files import Line, read_whole
from dex_jax.data._manifest_parquet import read_parquet
from dex_jax.data._problems import Problems, leaves_folder

COLUMNS = ("path", "split", "identity", "camera", "tracklet", "domain")
LABELS = ("identity", "camera", "tracklet")
REQUIRED = ("path", "split")
SPLITS = ("train", "query", "gallery")
_LONGEST_PATH = 4096  # that of Linux


class Row(NamedTuple):
    """One image of a manifest: its line and its six columns."""

    line: int
    path: str
    split: str
    identity: str
    camera: str
    tracklet: str
    domain: str


def note_row(
    problems: Problems, kind: str, path: Path, row: Row, column: str, expected: str = ""
) -> None:
    """Notes what is wrong with one field."""
    problems.add(
        kind,
        path,
        line=row.line,
        column=column,
        value=getattr(row, column),
        expected=expected,
    )


def read_table(path: Path, problems: Problems) -> list[Row]:
    """Reads a manifest's lines, `.parquet` or else CSV.

    Args:
        path: the table.
        problems: takes what is wrong with it.

    Returns:
        The rows in their order, labels as `read_label` gives them; those of a wrong
        length are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the table cannot be read at all: not UTF-8, no sound header.
    """
    if path.suffix.lower() == ".parquet":
        header, lines = read_parquet(path, problems, _check_header)
    else:
        header, lines = _read_csv(path, problems)
    return _parse(path, header, lines, problems)


def _read_csv(path: Path, problems: Problems) -> tuple[list[str], list[Line]]:
    raw = read_whole(path, "manifest")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        value = raw[error.start : error.start + 1].hex()
        problems.add("not UTF-8", path, line=line, value=f"byte 0x{value}")
        problems.check()
        raise
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    line = 1
    try:
        for fields in reader:
            lines.append(Line(line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.add("not a CSV line", path, line=line, value=str(error))
        problems.check()
    lines = [entry for entry in lines if entry.fields]
    if not lines:
        problems.add("no header", path, line=1, expected=",".join(COLUMNS))
        problems.check()
    _check_header(path, *lines[0], problems)
    return lines[0].fields, lines[1:]


def _parse(
    path: Path, header: list[str], lines: list[Line], problems: Problems
) -> list[Row]:
    rows: list[Row] = []
    for line, fields in lines:
        if len(fields) != len(header):
            problems.add(
                "wrong field count",
                path,
                line=line,
                value=str(len(fields)),
                expected=str(len(header)),
            )
            continue
        given = dict(zip(header, fields, strict=True))
        values = {column: given.get(column, "") for column in COLUMNS}
        values["domain"] = values["domain"] or REAL
        written = Row(line, **values)
        words = {name: read_label(getattr(written, name)) for name in LABELS}
        rows.append(written._replace(**words))
        _check_row(path, rows[-1], written, problems)
    if not lines:
        problems.add("no data rows", path, line=1)
    _check_repeats(path, rows, problems)
    _check_tracklets(path, rows, problems)
    return rows


def _check_header(path: Path, line: int, header: list[str], problems: Problems) -> None:
    seen: set[str] = set()
    for column in header:
        if column in seen:
            problems.add("duplicate column", path, line=line, column=column)
        elif column not in COLUMNS and not column.startswith("x_"):
            wanted = f"{', '.join(COLUMNS)} or x_..."
            problems.add(
                "unknown column", path, line=line, column=column, expected=wanted
            )
        seen.add(column)
    for column in REQUIRED:
        if column not in header:
            problems.add("missing required column", path, line=line, column=column)
    problems.check()  # without a sound header every row would be a false alarm


def _check_row(path: Path, row: Row, written: Row, problems: Problems) -> None:
    """Notes what is wrong with a row, in the words that are written there."""

    def note(kind: str, column: str, expected: str = "") -> None:
        note_row(problems, kind, path, written, column, expected)

    if not row.path:
        note("empty path", "path")
    elif PurePosixPath(row.path).is_absolute() or PureWindowsPath(row.path).drive:
        note("absolute path", "path", "relative to the image root")
    elif leaves_folder(row.path):
        note("path leaves the image root", "path", "no '..'")
    elif len(row.path) > _LONGEST_PATH:
        note("path too long", "path", f"at most {_LONGEST_PATH} letters")
    if row.split not in SPLITS:
        note("unknown split", "split", "train, query or gallery")
    # An array of words gives each of them the bytes of the longest.
    if not re.fullmatch(r"[a-z0-9_]{1,64}", row.domain):
        note("bad domain", "domain", "[a-z0-9_], at most 64 letters")
    if row.split == "train" and row.identity in ("", JUNK):
        note("train row without identity", "identity")
    if row.split == "query" and row.identity == JUNK:
        note("junk query", "identity", "an identity or nothing")


def _check_repeats(path: Path, rows: list[Row], problems: Problems) -> None:
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        line = first.setdefault((row.split, row.path), row.line)
        if row.path and line != row.line:
            note_row(problems, f"duplicate of line {line}", path, row, "path")


def _check_tracklets(path: Path, rows: list[Row], problems: Problems) -> None:
    first: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        if not row.tracklet:
            continue
        other = first.setdefault((row.split, row.domain, row.tracklet), row)
        for column in ("identity", "camera"):
            theirs = getattr(other, column)
            if getattr(row, column) != theirs:
                kind = f"tracklet {row.tracklet!r} mixes labels"
                expected = f"{theirs!r} as in line {other.line}"
                note_row(problems, kind, path, row, column, expected)
