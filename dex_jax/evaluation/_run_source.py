"""Descriptors of trained networks on their data set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dex_jax import runs
from dex_jax.data import Images, ReidData
from dex_jax.embeddings import EmbeddingFile, average
from dex_jax.evaluation._cache import Cache
from dex_jax.evaluation._extraction import describe_data, scaled_size
from dex_jax.evaluation._labels import Labelled, data_labels
from dex_jax.evaluation._paper import Row
from dex_jax.evaluation._sources import scored_or_bare


class RunSource:
    """Trained networks, an ensemble if they are several, on their data set.

    Every (network, scale) pair is described once and kept in the run's folder. The
    protocol is the one that the first run keeps.

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
        _check_filled(self._data, split, workdirs[0])
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
                scaled_size(config.image_size, scale)
        self._options = {"flip": flip}
        self._batch_size = batch_size
        self._method = method
        self._files: dict[tuple[int, float], EmbeddingFile] = {}
        self._averaged: dict[tuple[float, ...], EmbeddingFile] = {}
        self._seconds: dict[str, float] = {}
        self.name = "+".join(run.workdir.resolve().name for run in self._runs)
        # As it was when the run began, whatever the data set says by now.
        self.protocol = self._runs[0].protocols.get(split, self._data.protocol)
        self.images: Mapping[str, Images] | None = {
            "query": self._data.query.images,
            "gallery": self._data.gallery.images,
        }
        self.notes = (
            f"{self._data.name}, {split} split ({self._data.source})",
            *self._data.notes,
            *(f"{run.workdir}: step {run.step}" for run in self._runs),
            *self._other_protocols(split),
        )

    def _other_protocols(self, split: str) -> Iterator[str]:
        """Says which protocols were not taken."""
        first, *others = self._runs
        found = {f"{run.workdir}": run.protocols.get(split) for run in others}
        found[f"the data set, unlike {first.workdir}"] = self._data.protocol
        for whose, protocol in found.items():
            if protocol is not None and protocol != self.protocol:
                yield f"not scored by the protocol of {whose}: {protocol.describe()}"

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
            self._averaged[asked] = scored_or_bare(joined)
        return self._averaged[asked]

    def labels(self) -> Labelled:
        """Returns the data set's names and labels."""
        return data_labels(self._data)

    def _one(self, number: int, scale: float) -> EmbeddingFile:
        if (number, scale) not in self._files:
            run = self._runs[number]
            with runs.freed_memory_kept():
                file, seconds, _ = describe_data(
                    run.apply,
                    self._data,
                    size=scaled_size(run.config.image_size, scale),
                    batch_size=self._batch_size or run.config.evaluation.batch_size,
                    cache=Cache(run.workdir / "embeddings"),
                    fingerprint=run.fingerprint,
                    **self._options,
                )
            self._files[number, scale] = file
            self._seconds[f"{run.workdir} at scale {scale:g}"] = seconds
        return self._files[number, scale]


def _check_filled(data: ReidData, split: str, workdir: Path) -> None:
    """Refuses a split in which nobody asks or nothing can be found."""
    for side in ("query", "gallery"):
        if not len(getattr(data, side)):
            raise ValueError(
                f"{workdir}: nothing can be ranked: the {split} split of {data.name} "
                f"holds no {side} images; --split names another"
            )
