"""A data set of the catalogue, built once from its files into a store."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax.data._images import ImageFiles, fingerprint, show_progress
from dex_jax.data._records import Protocol, ReidData, ReidSplit
from dex_jax.data._store import (
    Contents,
    DamagedStoreError,
    Place,
    Record,
    Store,
    open_store,
)

KIND = "reid_store"
VERSION = "1.1.0"  # of the metadata below, and of how labels are read
SIDES = ("train", "query", "gallery")
LABELS = ("identities", "cameras", "tracklets")


def load_built(
    name: str,
    loader: Callable[..., ReidData],
    *,
    root: str | Path | None,
    data_dir: str | Path,
    options: dict[str, object],
) -> ReidData:
    """Reads a data set from its store, building it from `root` on the first call.

    Args:
        name: in the catalogue.
        loader: reads `root` where there is no store yet; every image is decoded once.
        root: may be None or gone once the store is built; files that change
            afterwards are not looked at (delete the store). A manifest is always given:
            its content tells the stores apart.
        data_dir: the folder of all stores.
        options: of the loader; another value is another store.

    Raises:
        FileNotFoundError: there is neither a store nor a root.
        ModuleNotFoundError: a package that keeps a store is not installed.
        ValueError: the root is broken (everything is listed), the folder cannot be
            written, the store is damaged or was built from another root.
    """
    path = Path(root) if root is not None else None
    present = path if path is not None and path.exists() else None
    place = Place(Path(data_dir), KIND, _label(name, options, path), VERSION)

    nowhere = FileNotFoundError(
        f"root: {name} is not built at {place.folder} yet and there is nothing at "
        f"{root}; say where it lies"
    )
    if present is None and not place.folder.is_dir():
        raise nowhere

    @contextlib.contextmanager
    def fill() -> Iterator[Contents]:
        if present is None:  # the store has been removed since
            raise nowhere
        yield _contents(loader(present, **(options | {"verify": True})), present)

    store = open_store(
        place, fill, instead="leave data_dir out to read the files at root"
    )
    try:
        data = _read(store)
        built_from = store.metadata["root"]
    except DamagedStoreError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedStoreError(place.folder, error) from error
    if present is not None and str(present.resolve()) != built_from:
        raise ValueError(
            f"root: the store at {place.folder} was built from {built_from}, not from "
            f"{present}; delete it or give another data_dir"
        )
    return data


def _label(name: str, options: dict[str, object], root: Path | None) -> str:
    words = [f"{key}={value}" for key, value in sorted(options.items())]
    if root is not None and root.is_file():
        # One folder may hold several manifests, and a changed one is another set.
        words = [root.stem, fingerprint(root.read_bytes()), *words]
    return "-".join([name, *words]).replace("/", "_")


def _contents(data: ReidData, root: Path) -> Contents:
    """All labels lie in the metadata too: a store opens without reading its records."""
    splits = {side: getattr(data, side) for side in SIDES}
    metadata = {
        "name": data.name,
        "protocol": asdict(data.protocol),
        "source": data.source,
        "identity_names": list(data.identity_names),
        "camera_names": list(data.camera_names),
        "notes": list(data.notes),
        "splits": {
            side: {
                "names": list(split.names),
                "domains": split.domains.tolist(),
                **{kind: getattr(split, kind).tolist() for kind in LABELS},
            }
            for side, split in splits.items()
        },
        "root": str(root.resolve()),
    }
    records = {side: _records(split) for side, split in splits.items() if len(split)}
    return Contents(metadata, records)


def _records(split: ReidSplit) -> Iterator[Record]:
    if not isinstance(split.images, ImageFiles):
        raise ValueError(f"images: expected image files, got {split.images!r}")
    for i in show_progress(range(len(split)), len(split), "writing images"):
        yield Record(
            split.images.path(i).read_bytes(),
            int(split.identities[i]),
            int(split.cameras[i]),
            int(split.tracklets[i]),
            str(split.domains[i]),
            split.names[i],
        )


def _read(store: Store) -> ReidData:
    stored: dict[str, Any] = store.metadata
    splits = {}
    for side in SIDES:
        labels = stored["splits"][side]
        names = tuple(labels["names"])
        splits[side] = ReidSplit(
            store.images(side, names),
            names,
            *(np.array(labels[kind], np.int64) for kind in LABELS),
            domains=np.array(labels["domains"], "U"),
        )
    return ReidData(
        name=stored["name"],
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        protocol=Protocol(**stored["protocol"]),
        source=stored["source"],
        identity_names=tuple(stored["identity_names"]),
        camera_names=tuple(stored["camera_names"]),
        notes=tuple(stored["notes"]),
    )
