"""Where an evaluation's descriptors come from: files, or networks on a data set."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dex_jax import _allocator, embedding_layouts, extraction, runs
from dex_jax.data import ImageFiles, Images, Protocol, ReidData, ReidSplit
from dex_jax.embeddings import EmbeddingFile, average
from dex_jax.report import Row


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


class EmbeddingSource:
    """Embeddings files of any framework, averaged if they are several (eq. 4).

    Labels, protocol and images are those of a data set, where one is given.

    Raises:
        FileNotFoundError: a file or image that is not there.
        ValueError: what `dex_jax.embedding_layouts.read` and `average` refuse.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        num_query: int | None = None,
        images: Path | None = None,
        method: str = "sum",
        data: ReidData | None = None,
    ):
        files = [embedding_layouts.read(path, num_query=num_query) for path in paths]
        self._file = average(files, method=method, labels=[str(path) for path in paths])
        notes: tuple[str, ...] = ()
        if data is not None:
            self._file = with_labels(self._file, data, called=str(paths[0]))
            notes = (f"labels are those of {data.name} ({data.source})",)
        self._file = _scored_or_bare(self._file)
        self.name = "+".join(path.stem for path in paths)
        self.protocol = _stored_protocol(self._file, paths[0])
        self.images: Mapping[str, Images] | None = None
        if images is not None:
            self.images = _images(images, self._file)
        elif data is not None:
            self.images = {"query": data.query.images, "gallery": data.gallery.images}
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
        del scales  # `possible` has left out whatever a file cannot answer
        return self._file


class RunSource:
    """Trained networks, an ensemble if they are several, on their data set.

    Every (network, scale) pair is described once and kept in the run's folder.

    Raises:
        FileNotFoundError: no such run, or its data set is not there.
        ValueError: runs of different data sets, or a scale out of range.
    """

    def __init__(
        self,
        workdirs: Sequence[Path],
        *,
        which: str = "best",
        split: str | None = None,
        scales: tuple[float, ...] | None = None,
        flip: bool = False,
        method: str = "sum",
        batch_size: int | None = None,
        on_bad_image: str | None = None,
    ):
        self._runs = [runs.load_run(workdir, which=which) for workdir in workdirs]
        configs = [run.config for run in self._runs]
        if split is None:
            self._data, split = runs.load_scored_data(
                configs[0], on_bad_image=on_bad_image
            )
        else:
            self._data = runs.load_data(
                configs[0], split=split, on_bad_image=on_bad_image
            )
        for run in self._runs[1:]:
            if run.config.data == configs[0].data:
                continue
            other = runs.load_data(run.config, split=split, on_bad_image=on_bad_image)
            if other.source != self._data.source or other.name != self._data.name:
                raise ValueError(
                    f"{run.workdir}: is a run on {other.name} ({other.source}) and "
                    f"{self._runs[0].workdir} on {self._data.name} "
                    f"({self._data.source}); an ensemble describes the same images"
                )
        self._scales = scales or tuple(configs[0].evaluation.scales)
        for config in configs:
            for scale in self._scales:
                extraction.scaled_size(config.image_size, scale)
        self._options = {"flip": flip}
        self._batch_size = batch_size
        self._method = method
        self._files: dict[tuple[int, float], EmbeddingFile] = {}
        self._averaged: dict[tuple[float, ...], EmbeddingFile] = {}
        self._seconds: dict[str, float] = {}
        self.name = "+".join(run.workdir.name for run in self._runs)
        self.protocol = self._data.protocol
        self.images: Mapping[str, Images] | None = {
            "query": self._data.query.images,
            "gallery": self._data.gallery.images,
        }
        self.notes = (
            f"{self._data.name}, {split} split ({self._data.source})",
            *self._data.notes,
            *(f"{run.workdir}: step {run.step}" for run in self._runs),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What belongs into `report.json`."""
        images = len(self._data.query) + len(self._data.gallery)
        return {
            "runs": [
                {
                    "workdir": str(run.workdir),
                    "step": run.step,
                    "seed": run.config.seed,
                    "config": run.config.to_dict(),
                }
                for run in self._runs
            ],
            "scales": self._scales,
            "fuse": self._method,
            **self._options,
            "extraction": {
                what: {"seconds": seconds, "images_per_second": images / seconds}
                for what, seconds in self._seconds.items()
            },
        }

    def possible(self, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """A network describes images at any scale."""
        return list(rows), []

    def embeddings(self, scales: tuple[float, ...] | None) -> EmbeddingFile:
        """Describes the images at the scales and averages scales and networks."""
        asked = scales or self._scales
        wanted = [(n, scale) for n in range(len(self._runs)) for scale in asked]
        if asked not in self._averaged:
            files = [self._one(number, scale) for number, scale in wanted]
            labels = [f"{self._runs[n].workdir} at scale {s:g}" for n, s in wanted]
            joined = average(files, method=self._method, labels=labels)
            self._averaged[asked] = _scored_or_bare(joined)
        return self._averaged[asked]

    def _one(self, number: int, scale: float) -> EmbeddingFile:
        if (number, scale) not in self._files:
            run = self._runs[number]
            with _allocator.freed_memory_kept():
                file, seconds, _ = extraction.describe_data(
                    run.apply,
                    self._data,
                    size=extraction.scaled_size(run.config.image_size, scale),
                    batch_size=self._batch_size or run.config.evaluation.batch_size,
                    cache=extraction.Cache(run.workdir / "embeddings"),
                    fingerprint=run.fingerprint,
                    **self._options,
                )
            self._files[number, scale] = file
            self._seconds[f"{run.workdir} at scale {scale:g}"] = seconds
        return self._files[number, scale]


def _scored_or_bare(file: EmbeddingFile) -> EmbeddingFile:
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
    }
    return replace(file, **labels, meta=meta)


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
