"""The table of a manifest: its lines, judged one by one."""

import csv
import importlib.util
import io
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from dex_jax.data._hold_out import REAL
from dex_jax.data._problems import Problems

COLUMNS = ("path", "split", "identity", "camera", "tracklet", "domain")
REQUIRED = ("path", "split")
SPLITS = ("train", "query", "gallery")
JUNK = "-1"


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
        The rows in their order; those of a wrong length are left out.

    Raises:
        ValueError: the table cannot be read at all: not UTF-8, no sound header.
    """
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    return read(path, problems)


def _read_csv(path: Path, problems: Problems) -> list[Row]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        value = raw[error.start : error.start + 1].hex()
        problems.add("not UTF-8", path, line=line, value=f"byte 0x{value}")
        problems.check()
        raise
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            lines.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.add("not a CSV line", path, line=line, value=str(error))
        problems.check()
    return _parse(path, [entry for entry in lines if entry[1]], problems)


def _read_parquet(path: Path, problems: Problems) -> list[Row]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path}: reading Parquet needs the package pyarrow; install it or write "
            "the same table as .csv"
        )
    from pyarrow import parquet

    table = parquet.read_table(path)
    columns = [
        ["" if value is None else str(value) for value in column.to_pylist()]
        for column in table.columns
    ]
    rows = [list(fields) for fields in zip(*columns, strict=True)]
    header = [(1, list(table.column_names))]
    # Rows are numbered like the lines of the same table in CSV.
    numbered = [(i, fields) for i, fields in enumerate(rows, start=2)]
    return _parse(path, header + numbered, problems)


def _parse(
    path: Path, lines: list[tuple[int, list[str]]], problems: Problems
) -> list[Row]:
    if not lines:
        problems.add("no header", path, line=1, expected=",".join(COLUMNS))
        problems.check()
    header = _check_header(path, *lines[0], problems)
    rows: list[Row] = []
    for line, fields in lines[1:]:
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
        rows.append(Row(line, **values))
    if len(lines) == 1:
        problems.add("no data rows", path, line=lines[0][0])
    for row in rows:
        _check_row(path, row, problems)
    _check_repeats(path, rows, problems)
    _check_tracklets(path, rows, problems)
    return rows


def _check_header(
    path: Path, line: int, header: list[str], problems: Problems
) -> list[str]:
    for i, column in enumerate(header):
        if column in header[:i]:
            problems.add("duplicate column", path, line=line, column=column)
        elif column not in COLUMNS and not column.startswith("x_"):
            wanted = f"{', '.join(COLUMNS)} or x_..."
            problems.add(
                "unknown column", path, line=line, column=column, expected=wanted
            )
    for column in REQUIRED:
        if column not in header:
            problems.add("missing required column", path, line=line, column=column)
    problems.check()  # without a sound header every row would be a false alarm
    return header


def _check_row(path: Path, row: Row, problems: Problems) -> None:
    def note(kind: str, column: str, expected: str = "") -> None:
        note_row(problems, kind, path, row, column, expected)

    posix, windows = PurePosixPath(row.path), PureWindowsPath(row.path)
    if not row.path:
        note("empty path", "path")
    elif posix.is_absolute() or windows.drive:
        note("absolute path", "path", "relative to the image root")
    elif ".." in posix.parts or ".." in windows.parts:
        note("path leaves the image root", "path", "no '..'")
    if row.split not in SPLITS:
        note("unknown split", "split", "train, query or gallery")
    if not re.fullmatch(r"[a-z0-9_]+", row.domain):
        note("bad domain", "domain", "[a-z0-9_]+")
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
