"""Where an evaluation's descriptors come from: files, or networks on a data set."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dex_jax.data import ImageFiles, Images, Protocol, ReidData, ReidSplit
from dex_jax.embeddings import EmbeddingFile, average, read
from dex_jax.evaluation._labels import Labelled
from dex_jax.evaluation._paper import Row


class Source(typing.Protocol):
    """Descriptors of one data set, at the scales a row of a table asks for.

    Attributes:
        name: what a report about it is called.
        protocol: how the data set is scored.
        images: the images of both sides, None where there are none.
        notes: sentences a reader must know.
        facts: what belongs into `report.json`.
    """

    name: str
    protocol: Protocol
    images: Mapping[str, Images] | None
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]: ...

    def possible(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """Returns the rows that can be computed, and what is said of the others."""
        ...

    def embeddings(self, scales: tuple[float, ...] | None) -> EmbeddingFile:
        """Returns the descriptors at some scales; None: those of the command."""
        ...

    def labels(self) -> Labelled:
        """Returns names and labels; nothing is described for them."""
        ...


class EmbeddingSource:
    """Embeddings files of any framework, averaged if they are several (eq. 4).

    Labels, protocol and images are those of a data set, where one is given.

    Raises:
        FileNotFoundError: a file or image that is not there.
        ValueError: what `dex_jax.embeddings._layouts.read` and `average` refuse.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        num_query: int | None = None,
        images: Path | None = None,
        method: str = "sum",
        data: ReidData | None = None,
        leave_one_out: bool = False,
    ):
        files = [
            read(path, num_query=num_query, leave_one_out=leave_one_out)
            for path in paths
        ]
        self._file = average(files, method=method, labels=[str(path) for path in paths])
        notes: tuple[str, ...] = ()
        if data is not None:
            self._file = with_labels(self._file, data, called=str(paths[0]))
            notes = (f"labels are those of {data.name} ({data.source})",)
        self._file = scored_or_bare(self._file)
        self.name = "+".join(path.stem for path in paths)
        self.protocol = _stored_protocol(self._file, paths[0])
        self.images: Mapping[str, Images] | None = None
        if images is not None:
            self.images = _images(images, self._file)
        elif data is not None:
            self.images, absent = _present(data)
            notes += absent
        self.notes: tuple[str, ...] = (*notes, *_stored_notes(self._file, paths[0]))
        self.facts: dict[str, Any] = {"embeddings_files": [str(p) for p in paths]}

    def possible(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """A file holds what it holds: rows at several scales are left out."""
        kept = [row for row in rows if row.scales in (None, (1.0,))]
        if len(kept) < 2 <= len(rows):
            raise ValueError(
                "--rerank: this table compares image scales, which needs the images: "
                "give --workdir in place of --embeddings"
            )
        left_out = [row.label for row in rows if row not in kept]
        if not left_out:
            return kept, []
        return kept, [f"left out, needing several scales: {', '.join(left_out)}"]

    def embeddings(self, scales: tuple[float, ...] | None) -> EmbeddingFile:
        """Returns the file's descriptors."""
        del scales  # a file has scale 1 alone: `possible` drops rows with other scales
        return self._file

    def labels(self) -> Labelled:
        """Returns the file's names and labels."""
        return self._file


def scored_or_bare(file: EmbeddingFile) -> EmbeddingFile:
    """Drops identities that no query has, as in a challenge that keeps them back."""
    if file.query_identities is None or (file.query_identities != -1).any():
        return file
    return replace(file, query_identities=None, gallery_identities=None)


def with_labels(file: EmbeddingFile, data: ReidData, *, called: str) -> EmbeddingFile:
    """Gives descriptors the names, labels, protocol and notes of a data set.

    Args:
        file: rows in the order of the data set's queries and gallery; names of its own
            must be the data set's.
        data: the data set.
        called: what errors call the file.

    Raises:
        ValueError: another number of rows, or a name that differs.
    """
    labels: dict[str, Any] = {}
    for side in ("query", "gallery"):
        split: ReidSplit = getattr(data, side)
        names = getattr(file, f"{side}_names")
        if len(names) != len(split):
            raise ValueError(
                f"{called}: holds {len(names)} {side} rows, {data.name} has "
                f"{len(split)} {side} images"
            )
        if file.meta.get("names") != "numbered":
            for row, (mine, theirs) in enumerate(zip(names, split.names, strict=True)):
                if mine != theirs:
                    raise ValueError(
                        f"{called}: {side}_names: row {row} is {mine!r}, in "
                        f"{data.name} {theirs!r}; rows follow the data set's lists"
                    )
        labels[f"{side}_names"] = split.names
        for kind in ("identities", "cameras", "tracklets"):
            labels[f"{side}_{kind}"] = getattr(split, kind)
    meta = {
        **file.meta,
        "data": data.name,
        "source": data.source,
        "names": "those of the data set",
        "notes": list(data.notes),
        "protocol": asdict(data.protocol),
        **label_words(data),
    }
    return replace(file, **labels, meta=meta)


def label_words(data: ReidData) -> dict[str, dict[str, list[str]]]:
    """The words behind a data set's numbers, as `EmbeddingFile.meta` has them."""
    words = {
        kind: list(names)
        for kind, names in (
            ("identities", data.identity_names),
            ("cameras", data.camera_names),
        )
        if names
    }
    return {"words": words} if words else {}


def _stored_protocol(file: EmbeddingFile, path: Path) -> Protocol:
    stored = file.meta.get("protocol")
    if stored is None:
        cameras = file.query_cameras is not None
        return Protocol("embeddings file", remove_same_camera=cameras)
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: meta: protocol: expected an object, got {stored!r}")
    try:
        return Protocol(**stored)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: meta: protocol: {error}") from None


def _stored_notes(file: EmbeddingFile, path: Path) -> tuple[str, ...]:
    stored = file.meta.get("notes", [])
    if not isinstance(stored, list) or not all(isinstance(n, str) for n in stored):
        raise ValueError(f"{path}: meta: notes: expected a list of words")
    return tuple(stored)


def _present(data: ReidData) -> tuple[dict[str, Images] | None, tuple[str, ...]]:
    """The images of a data set; nothing and a note where files are absent."""
    images: dict[str, Images] = {}
    absent: list[str] = []
    for side, split in (("query", data.query), ("gallery", data.gallery)):
        images[side] = files = split.images
        if isinstance(files, ImageFiles):
            absent += [n for n in files.names if not (files.root / n).is_file()]
    if absent:
        note = f"{len(absent)} images are not there, first {absent[0]!r}: none is shown"
        return None, (note,)
    return images, ()


def _images(root: Path, file: EmbeddingFile) -> dict[str, Images]:
    sides = {"query": file.query_names, "gallery": file.gallery_names}
    missing = [
        name
        for names in sides.values()
        for name in names
        if not (root / name).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f"{root}: {len(missing)} of the named images are not there, first "
            f"{', '.join(repr(name) for name in missing[:5])}"
        )
    return {side: ImageFiles(root, names) for side, names in sides.items()}
