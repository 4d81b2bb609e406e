"""One's own data: a table of image paths and labels (CSV, or Parquet with pyarrow)."""

import csv
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np

from dex_jax._checks import check_choice
from dex_jax.data._hold_out import REAL
from dex_jax.data._images import ImageFiles, file_sizes, find_faults, fingerprint
from dex_jax.data._problems import Problems
from dex_jax.data._records import UNKNOWN, Protocol, ReidData, ReidSplit

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


def load_manifest(
    root: str | Path,
    *,
    image_root: str | Path | None = None,
    remove_same_camera: bool = False,
    top: int | None = None,
    ap_denominator: str = "positives",
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads a manifest: one line per image, in the order of embeddings and submissions.

    The columns are `path` (relative, with `/`), `split` (train, query or gallery),
    `identity` (needed in train; empty = unlabelled, `-1` = junk in the gallery),
    `camera`, `tracklet` and `domain` (default "real"); further ones must begin with
    `x_`. Identities and cameras are compared only within a domain, tracklets within
    (split, domain). Labels are numbered by sorted (domain, word).

    Args:
        root: the table, `.csv` (UTF-8, RFC 4180) or `.parquet`.
        image_root: the folder that paths start from; default the table's folder.
        remove_same_camera: the protocol's rule; needs a camera in every scored row.
        top: the protocol's cut; None keeps the whole ranking.
        ap_denominator: "positives" or "min".
        on_bad_image: "error" or "skip" (leave out and count).
        verify: decode every image once, so that the error lists all bad ones.

    Returns:
        The data set; images are decoded when they are asked for.

    Raises:
        FileNotFoundError: no such table.
        ValueError: everything wrong with the table or its files, the first 20 with
            line, column and value.

    Warns:
        UserWarning: queries whose identity the gallery lacks, with their count.
    """
    path = Path(root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; give the table itself, a .csv file with the "
            f"columns {', '.join(COLUMNS)}"
        )
    problems = Problems(f"manifest {path}")
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    rows = read(path, problems)
    check_choice(on_bad_image, "on_bad_image", ("error", "skip"))
    folder = path.parent if image_root is None else Path(image_root)
    files = ImageFiles(folder, [row.path for row in rows])
    sizes = file_sizes(files)
    skip = on_bad_image == "skip"
    faults = find_faults(files, sizes, decode_all=verify or skip)
    if not skip:
        for i, fault in faults.items():
            if rows[i].path:
                _note(problems, fault, path, rows[i], "path")
    if remove_same_camera:
        _check_cameras(path, rows, problems)
    problems.check()
    notes = ()
    if skip and faults:
        rows = [row for i, row in enumerate(rows) if i not in faults]
        notes = (f"{len(faults)} image(s) are left out: absent or not to be decoded",)
    identities = _numbers((r.domain, r.identity) for r in rows)
    cameras = _numbers((r.domain, r.camera) for r in rows)
    sides = {}
    for name in SPLITS:
        mine = [row for row in rows if row.split == name]
        tracklets = _numbers((r.domain, r.tracklet) for r in mine)
        sides[name] = ReidSplit(
            ImageFiles(folder, [r.path for r in mine]),
            tuple(r.path for r in mine),
            _look_up(identities, [(r.domain, r.identity) for r in mine]),
            _look_up(cameras, [(r.domain, r.camera) for r in mine]),
            _look_up(tracklets, [(r.domain, r.tracklet) for r in mine]),
            np.array([r.domain for r in mine], "U"),
        )
    _warn_of_unanswerable(path, sides["query"], sides["gallery"])
    content = fingerprint(path.read_bytes(), sizes.tobytes())
    return ReidData(
        name="manifest",
        **sides,
        protocol=Protocol(
            path.stem, remove_same_camera, top=top, ap_denominator=ap_denominator
        ),
        source=f"manifest-{content}",
        identity_names=tuple(_word(key) for key in identities),
        camera_names=tuple(_word(key) for key in cameras),
        notes=notes,
    )


def _check_cameras(path: Path, rows: list[Row], problems: Problems) -> None:
    for row in rows:
        if row.split != "train" and not row.camera:
            kind = "camera unknown, remove_same_camera needs it"
            _note(problems, kind, path, row, "camera")


def _note(
    problems: Problems, kind: str, path: Path, row: Row, column: str, expected: str = ""
) -> None:
    problems.add(
        kind,
        path,
        line=row.line,
        column=column,
        value=getattr(row, column),
        expected=expected,
    )


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
        _note(problems, kind, path, row, column, expected)

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
            _note(problems, f"duplicate of line {line}", path, row, "path")


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
                _note(problems, kind, path, row, column, expected)


def _numbers(keys: Iterator[tuple[str, str]]) -> dict[tuple[str, str], int]:
    known = sorted({key for key in keys if key[1] not in ("", JUNK)})
    return {key: number for number, key in enumerate(known)}


def _look_up(
    numbers: dict[tuple[str, str], int], keys: list[tuple[str, str]]
) -> np.ndarray:
    return np.array([numbers.get(key, UNKNOWN) for key in keys], np.int64)


def _word(key: tuple[str, str]) -> str:
    domain, word = key
    return word if domain == REAL else f"{domain}:{word}"


def _warn_of_unanswerable(path: Path, query: ReidSplit, gallery: ReidSplit) -> None:
    asked = query.identities[query.identities != UNKNOWN]
    absent = np.setdiff1d(asked, gallery.identities)
    if absent.size and len(gallery):
        lost = int(np.isin(asked, absent).sum())
        warnings.warn(
            f"manifest {path}: {lost} queries show {absent.size} identities that the "
            "gallery lacks; they cannot be scored",
            stacklevel=3,
        )
