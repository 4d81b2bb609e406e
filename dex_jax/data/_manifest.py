"""One's own data: a table of image paths and labels (CSV, or Parquet with pyarrow)."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dex_jax._checks import JUNK, alike
from dex_jax.data._contents import read_contents
from dex_jax.data._hold_out import REAL
from dex_jax.data._images import ImageFiles, file_sizes, find_faults, fingerprint
from dex_jax.data._manifest_table import (
    COLUMNS,
    LABELS,
    SPLITS,
    Row,
    note_row,
    read_table,
)
from dex_jax.data._problems import Problems, check_reading
from dex_jax.data._records import UNKNOWN, Protocol, ReidData, ReidSplit


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
    `x_`. In the labels "3.0" is 3, "-1.0" is -1 and "nan" is empty, since pandas makes
    such numbers of a column with gaps. Identities and cameras are compared only within
    a domain, tracklets within (split, domain). Labels are numbered by sorted (domain,
    word).

    Args:
        root: the table, `.csv` (UTF-8, RFC 4180) or `.parquet`.
        image_root: the folder that paths start from; default the table's folder.
        remove_same_camera: the protocol's rule; needs a camera in every scored row.
        top: the protocol's cut; None keeps the whole ranking.
        ap_denominator: "positives" or "min".
        on_bad_image: see `dex_jax.data.load`.
        verify: see there.

    Returns:
        The data set; images are decoded when they are asked for.

    Raises:
        FileNotFoundError: no such table.
        ValueError: everything wrong with the table or its files, the first 20 with
            line, column and value; queries and no gallery.

    Warns:
        UserWarning: queries whose identity the gallery lacks, with their count.

    `notes` name labels that may be meant as one, such as "1", "1 " and "0001".
    """
    path = Path(root)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such manifest; give the table itself, a .csv file with the "
            f"columns {', '.join(COLUMNS)}"
        )
    check_reading(on_bad_image, verify)
    problems = Problems(f"manifest {path}")
    rows = read_table(path, problems)
    folder = path.parent if image_root is None else Path(image_root)
    files = ImageFiles(folder, [row.path for row in rows])
    if remove_same_camera:
        _check_cameras(path, rows, problems)
    faults: dict[int, str] = {}
    if on_bad_image != "later":
        skip = on_bad_image == "skip"
        faults = find_faults(files, file_sizes(files), decode_all=verify or skip)
    for i, fault in faults.items():
        if rows[i].path and on_bad_image == "error":
            note_row(problems, fault, path, rows[i], "path")
    problems.check()
    notes = _notes_on_labels(rows)
    if faults:
        rows = [row for i, row in enumerate(rows) if i not in faults]
        left_out = f"{len(faults)} image(s) are left out: absent or not to be decoded"
        notes = (left_out, *notes)
    identities = _numbers((r.domain, r.identity) for r in rows)
    cameras = _numbers((r.domain, r.camera) for r in rows)
    train, query, gallery = (
        _split(folder, [r for r in rows if r.split == name], identities, cameras)
        for name in SPLITS
    )
    _check_answers(path, query, gallery)
    content = [path.read_bytes(), repr(sorted(faults)).encode()]
    if on_bad_image != "later":
        content.append(read_contents(files))
    return ReidData(
        name="manifest",
        train=train,
        query=query,
        gallery=gallery,
        protocol=Protocol(
            path.stem, remove_same_camera, top=top, ap_denominator=ap_denominator
        ),
        source=f"manifest-{fingerprint(*content)}",
        identity_names=tuple(_word(key) for key in identities),
        camera_names=tuple(_word(key) for key in cameras),
        notes=notes,
    )


def _split(
    folder: Path,
    rows: list[Row],
    identities: dict[tuple[str, str], int],
    cameras: dict[tuple[str, str], int],
) -> ReidSplit:
    names = tuple(row.path for row in rows)
    tracklets = _numbers((row.domain, row.tracklet) for row in rows)
    return ReidSplit(
        ImageFiles(folder, names),
        names,
        _look_up(identities, [(row.domain, row.identity) for row in rows]),
        _look_up(cameras, [(row.domain, row.camera) for row in rows]),
        _look_up(tracklets, [(row.domain, row.tracklet) for row in rows]),
        np.array([row.domain for row in rows], "U"),
    )


def _notes_on_labels(rows: list[Row]) -> tuple[str, ...]:
    """Says which labels may be meant as one."""
    notes = []
    for column in LABELS:
        domains: dict[str, set[str]] = {}
        for row in rows:
            domains.setdefault(row.domain, set()).add(getattr(row, column))
        found = [text for words in domains.values() if (text := alike(words))]
        if found:
            notes.append(
                f"{column}: {'; '.join(found)} are read as different labels; write "
                "them alike where they are one"
            )
    return tuple(notes)


def _check_cameras(path: Path, rows: list[Row], problems: Problems) -> None:
    for row in rows:
        if row.split != "train" and not row.camera:
            kind = "camera unknown, remove_same_camera needs it"
            note_row(problems, kind, path, row, "camera")


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


def _check_answers(path: Path, query: ReidSplit, gallery: ReidSplit) -> None:
    """Refuses queries without a gallery, warns of those that it cannot answer."""
    if len(query) and not len(gallery):
        raise ValueError(f"{path}: lists {len(query)} queries and no gallery image")
    asked = query.identities[query.identities != UNKNOWN]
    absent = np.setdiff1d(asked, gallery.identities)
    if absent.size:
        lost = int(np.isin(asked, absent).sum())
        warnings.warn(
            f"manifest {path}: {lost} queries show {absent.size} identities that the "
            "gallery lacks; they cannot be scored",
            stacklevel=3,
        )
