"""The store of a data set: built once by one process, read by all afterwards.

A store is a TFDS data set in ArrayRecord files. The packages that write and read them
are slow to load, so the first store that is opened imports them.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dex_jax._checks import check_file, require
from dex_jax.data._images import EncodedImages

RECORDS_PER_FILE = 20_000


class Record(NamedTuple):
    """One image file with its labels, as a store keeps it."""

    image: bytes
    identity: int
    camera: int
    tracklet: int
    domain: str
    name: str


@dataclass(frozen=True)
class Contents:
    """What a store is built from."""

    metadata: dict[str, Any]
    """Kept beside the records and read back in full: words, numbers, lists, dicts."""
    splits: dict[str, Iterator[Record]]
    """Consumed one after the other in this order; a split without images is left out,
    as it would have no file."""


class Place(NamedTuple):
    """Where a store lies: `data_dir/kind/label/version`."""

    data_dir: Path
    kind: str
    label: str
    version: str

    @property
    def folder(self) -> Path:
        """The folder of the store; it exists only once the store is complete."""
        return self.data_dir / self.kind / self.label / self.version


class DamagedStoreError(ValueError):
    """A store cannot be read.

    Args:
        folder: of the store.
        fault: what is wrong with it.
    """

    def __init__(self, folder: Path, fault: object):
        super().__init__(
            f"{folder}: the store is damaged; delete that folder and load again "
            f"({fault})"
        )


class Store:
    """A store that is open for reading.

    Args:
        folder: of a complete store.

    Attributes:
        folder: the same.
        metadata: what it was built with.

    Raises:
        DamagedStoreError: it cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            for file in folder.iterdir():
                check_file(file, "file of a store")  # of a pipe nothing ever comes
            self.metadata, self._records = _open_records(folder)
            for records in self._records.values():
                # A file that was cut short has lost its end.
                records[len(records) - 1]
        except Exception as error:
            raise DamagedStoreError(folder, error) from error

    def images(self, split: str, names: tuple[str, ...]) -> EncodedImages:
        """Returns the images of a split, which are decoded when they are asked for.

        Args:
            split: its name.
            names: N names of the images, for messages.

        Raises:
            DamagedStoreError: the split does not hold N images.
        """
        size = len(self._records[split]) if split in self._records else 0
        if size != len(names):
            fault = f"{size} {split} images, not {len(names)}"
            raise DamagedStoreError(self.folder, fault)
        read = functools.partial(self._read, split)
        return EncodedImages(read, names, str(self.folder))

    def _read(self, split: str, index: int) -> bytes:
        try:
            return self._records[split][index]["image"]
        except Exception as error:
            raise DamagedStoreError(self.folder, error) from error


def open_store(
    place: Place,
    fill: Callable[[], AbstractContextManager[Contents]],
    *,
    instead: str,
) -> Store:
    """Opens a store, building it first where there is none.

    Processes that ask for the same store at once build it once: one does, the others
    wait for it. What a killed build left behind is removed by the next one.

    Args:
        place: of the store.
        fill: opens what the store is built from; closed when the store is built.
        instead: what a user can do without a store, which ends two of the messages.

    Raises:
        ModuleNotFoundError: a package that keeps a store is not installed.
        ValueError: the folder cannot be written.
        DamagedStoreError: the store cannot be read.
    """
    try:
        require("tensorflow_datasets", "array_record", extra="data")
    except ModuleNotFoundError as error:
        message = f"data_dir: {error}; or {instead}"
        raise ModuleNotFoundError(message, name=error.name) from None
    if not place.folder.is_dir():
        with _alone(place, instead):
            # Another process may have built it in the meantime.
            if not place.folder.is_dir():
                _build(place, fill)
    return Store(place.folder)


def _build(place: Place, fill: Callable[[], AbstractContextManager[Contents]]) -> None:
    """Builds a store under another name, which it loses when everything is in it."""
    unfinished = place.folder.with_name(f"incomplete.{place.version}")
    unfinished.mkdir()
    try:
        with fill() as contents:
            _write(unfinished, place, contents)
        unfinished.rename(place.folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def _write(folder: Path, place: Place, contents: Contents) -> None:
    """Writes each record as it comes: none but the current one is held in memory."""
    import tensorflow_datasets as tfds

    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=place.kind,
            version=tfds.core.Version(place.version),
            data_dir=os.fspath(folder),
            module_name=__name__,
            config_name=place.label,
        ),
        description="A re-identification data set.",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "identity": np.int64,
                "camera": np.int64,
                "tracklet": np.int64,
                "domain": tfds.features.Text(),
                "name": tfds.features.Text(),
            }
        ),
        metadata=tfds.core.MetadataDict(contents.metadata),
        disable_shuffling=True,
    )
    # A builder of TFDS would sort all records first, and those of a split above one
    # gigabyte with tensorflow, which this package does without.
    writer: Any = tfds.core.SequentialWriter(
        info, RECORDS_PER_FILE, file_format="array_record"
    )
    writer.initialize_splits(list(contents.splits))
    for split, records in contents.splits.items():
        writer.add_examples({split: (record._asdict() for record in records)})
    writer.close_all()


def _open_records(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, Sequence[dict[str, Any]]]]:
    """Opens the files of a store, which say themselves what their records hold.

    Returns:
        The metadata, and the records of each split, whose images are not decoded.

    Raises:
        Exception: whatever the packages make of damaged files.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(os.fspath(folder))
    # The package types this method for all of its file formats at once.
    open_split: Any = builder.as_data_source
    decoders = {"image": tfds.decode.SkipDecoding()}
    splits = list(builder.info.splits or {})
    records = {split: open_split(split, decoders=decoders) for split in splits}
    return dict(builder.info.metadata or {}), records


@contextlib.contextmanager
def _alone(place: Place, instead: str) -> Iterator[None]:
    """Holds a store against other processes; removes what a killed build left.

    The operating system gives the lock back when its holder ends, however it ends.
    """
    import fcntl  # Windows lacks it, and the packages that keep a store

    folder = place.folder.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"data_dir: cannot write to {place.data_dir} ({error.strerror}); pass a "
            f"folder that can be written, or {instead}"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # "incomplete.X_1.0.0" is what builds of earlier versions left.
        for left in filter(Path.is_dir, folder.glob("incomplete.*")):
            shutil.rmtree(left)
        yield
