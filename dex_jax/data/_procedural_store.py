"""The embedded set as a TFDS builder; needs tensorflow_datasets and array_record."""

import contextlib
import dataclasses
import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from dex_jax.procedural._plan import RECIPES, SPLITS, VERSION, Job
from dex_jax.procedural._worker import Drawn


@dataclasses.dataclass
class ProceduralConfig(tfds.core.BuilderConfig):
    """A size and a seed of the embedded set."""

    size: str = "demo"
    seed: int = 0


class ProceduralVehicles(tfds.core.GeneratorBasedBuilder):
    """Vehicles drawn from a seed, in the splits train, query and gallery."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar[list[ProceduralConfig]] = [
        ProceduralConfig(name=size, size=size) for size in RECIPES
    ]

    url_infos = None  # nothing is downloaded: no list of addresses is looked for
    jobs: Sequence[Job] = ()
    """What to draw when the set is made."""
    drawn: Iterator[Drawn] = iter(())
    """The same tracklets, drawn, in the same order."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Vehicles for re-identification, drawn by a renderer.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 3), encoding_format="jpeg"
                    ),
                    "identity": np.int32,
                    "camera": np.int32,
                    "tracklet": np.int32,
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        key = 0
        for _ in range(sum(job.split == split for job in self.jobs)):
            job, images = next(self.drawn)
            for name, image in zip(job.names, images, strict=True):
                yield (
                    key,
                    {
                        "image": image,
                        "identity": job.identity,
                        "camera": job.camera_id,
                        "tracklet": job.tracklet,
                        "name": name,
                    },
                )
                key += 1


def open_store(
    folder: Path,
    *,
    size: str,
    seed: int,
    jobs: Sequence[Job],
    content: str,
    draw: Callable[[], contextlib.AbstractContextManager[Iterator[Drawn]]],
) -> dict[str, Callable[[int], bytes]]:
    """Opens the set under `folder`, making it first if it is not there.

    Args:
        folder: the data folder, shared by all sizes and seeds.
        size: of the set.
        seed: of the set.
        jobs: its tracklets, split by split.
        content: the digest that a stored set must carry.
        draw: opens the drawn tracklets; closed when the set is made.

    Returns:
        For each split a function from an image's place to its JPEG file.

    Raises:
        ValueError: the folder cannot be written, or what lies there is damaged or
            was made from another recipe.
    """
    name = size if seed == 0 else f"{size}-seed{seed}"
    config = name if seed == 0 else ProceduralConfig(name=name, size=size, seed=seed)
    place = folder / "procedural_vehicles" / name / VERSION
    if not place.is_dir():
        with _alone(folder):
            if not place.is_dir():
                _make(folder, config, jobs, content, draw)
    try:
        builder = ProceduralVehicles(
            config=config, data_dir=os.fspath(folder), file_format="array_record"
        )
        made_from = (builder.info.metadata or {}).get("digest")
        sources = {split: _source(builder, split) for split in SPLITS}
        lengths = {split: len(source) for split, source in sources.items()}
        for split in SPLITS:
            sources[split][lengths[split] - 1]
    except Exception as error:
        raise ValueError(f"{_damaged(place)} ({error})") from error
    if made_from != content:
        raise ValueError(
            f"{place}: holds the set of another recipe ({made_from}, expected "
            f"{content}); delete that folder and load again"
        )
    for split in SPLITS:
        expected = sum(len(job.names) for job in jobs if job.split == split)
        if lengths[split] != expected:
            raise ValueError(
                f"{_damaged(place)}: {lengths[split]} {split} images, not {expected}"
            )
    return {split: _Reader(sources[split], place) for split in SPLITS}


class _Reader:
    """Reads the JPEG file of one image."""

    def __init__(self, source: Any, place: Path):
        self._source = source
        self._place = place

    def __call__(self, index: int) -> bytes:
        try:
            return self._source[index]["image"]
        except Exception as error:
            raise ValueError(f"{_damaged(self._place)} ({error})") from error


def _damaged(place: Path) -> str:
    return f"{place}: the stored set is damaged; delete that folder and load again"


def _source(builder: ProceduralVehicles, split: str) -> Any:
    source: Any = builder.as_data_source
    return source(split, decoders={"image": tfds.decode.SkipDecoding()})


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes; clears what a killed one left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".procedural_vehicles.lock").open("w")
    except OSError as error:
        raise ValueError(
            f"data_dir: cannot write to {folder} ({error.strerror}); pass a folder "
            "that can be written, or in_memory=True"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in (folder / "procedural_vehicles").glob("*/*.incomplete*"):
            shutil.rmtree(left)
        for left in (folder / "procedural_vehicles").glob("*/incomplete.*"):
            shutil.rmtree(left)
        yield


def _make(
    folder: Path,
    config: str | ProceduralConfig,
    jobs: Sequence[Job],
    content: str,
    draw: Callable[[], contextlib.AbstractContextManager[Iterator[Drawn]]],
) -> None:
    builder = ProceduralVehicles(
        config=config, data_dir=os.fspath(folder), file_format="array_record"
    )
    builder.jobs = jobs
    info: Any = builder.info
    info.metadata["digest"] = content
    tfds.disable_progress_bar()
    try:
        # TFDS announces a download on stdout; ours is none.
        with draw() as builder.drawn, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()
