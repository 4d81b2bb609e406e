"""Any data set of the catalogue as a TFDS builder over ArrayRecord files."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from dex_jax.data._images import ImageFiles, decode_bytes, fingerprint
from dex_jax.data._records import Protocol, ReidData, ReidSplit

SIDES = ("train", "query", "gallery")
LABELS = ("identities", "cameras", "tracklets")


@dataclass
class StoreConfig(tfds.core.BuilderConfig):
    """What is read into a store: a loader, its options, the file below the root."""

    loader: Callable[..., ReidData] | None = None
    options: dict[str, object] = field(default_factory=dict)
    file: str = ""


class ReidStore(tfds.core.GeneratorBasedBuilder):
    """The splits of one data set: image files as they are, with their labels.

    The labels of all images lie in the metadata as well, so that a store opens without
    reading its records.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir: the root that dex_jax.data.load takes."
    url_infos = None  # nothing is downloaded: no list of addresses is looked for

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="A re-identification data set with its published protocol.",
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
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        config = self.builder_config
        if not isinstance(config, StoreConfig) or config.loader is None:
            raise ValueError("config: expected a StoreConfig with a loader")
        root = Path(dl_manager.manual_dir) / config.file
        data = config.loader(root, **(config.options | {"verify": True}))
        info: Any = self.info
        info.metadata.update(_describe(data), root=os.fspath(root.resolve()))
        sides = {side: getattr(data, side) for side in SIDES}
        # A split without images has no file.
        return {k: self._generate_examples(s) for k, s in sides.items() if len(s)}

    def _generate_examples(self, split: ReidSplit) -> Iterator[tuple[int, dict]]:
        if not isinstance(split.images, ImageFiles):
            raise ValueError("images: expected image files")
        for i, name in enumerate(split.names):
            yield (
                i,
                {
                    "image": split.images.path(i).read_bytes(),
                    "identity": split.identities[i],
                    "camera": split.cameras[i],
                    "tracklet": split.tracklets[i],
                    "domain": str(split.domains[i]),
                    "name": name,
                },
            )


class StoredImages:
    """The images of one split of a store; `images[i]` decodes uint8 `[H, W, 3]`."""

    def __init__(self, builder: ReidStore, side: str, names: tuple[str, ...]):
        source: Any = builder.as_data_source
        self._records = source(side, decoders={"image": tfds.decode.SkipDecoding()})
        self._names = names
        self._place = builder.data_dir
        if len(self._records) != len(names):
            raise ValueError(f"{len(self._records)} {side} images, not {len(names)}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        content = self._records[int(index)]["image"]
        return decode_bytes(content, f"{self._place}: {self._names[index]}")


def open_store(
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
        ValueError: the root is broken (everything is listed), the folder cannot be
            written, the store is damaged or was built from another root.
    """
    path = Path(root) if root is not None else None
    config = _config(name, loader, options, path)
    try:
        Path(data_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"data_dir: cannot write to {data_dir} ({error})") from error
    with _quiet():
        builder = ReidStore(
            config=config, data_dir=os.fspath(data_dir), file_format="array_record"
        )
    place = Path(builder.data_dir)
    if not place.is_dir():
        if path is None or not path.exists():
            raise FileNotFoundError(
                f"root: {name} is not built at {place} yet and there is nothing at "
                f"{root}; say where it lies"
            )
        _build(builder, path.parent if config.file else path)
    try:
        stored: dict[str, Any] = dict(builder.info.metadata or {})
        data = _read(builder, stored)
        built_from = stored["root"]
    except Exception as error:
        raise ValueError(
            f"{place}: the store is damaged ({error}); delete it and load again"
        ) from error
    if path is not None and path.exists() and str(path.resolve()) != built_from:
        raise ValueError(
            f"root: the store at {place} was built from {built_from}, not from {path}; "
            "delete it or give another data_dir"
        )
    return data


def _config(
    name: str,
    loader: Callable[..., ReidData],
    options: dict[str, object],
    root: Path | None,
) -> StoreConfig:
    words = [f"{key}={value}" for key, value in sorted(options.items())]
    file = ""
    if root is not None and root.is_file():
        # One folder may hold several manifests, and a changed one is another set.
        file = root.name
        words = [root.stem, fingerprint(root.read_bytes()), *words]
    label = "-".join([name, *words]).replace("/", "_")
    return StoreConfig(name=label, loader=loader, options=options, file=file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # TFDS logs every configuration that it has not been told of.
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _build(builder: ReidStore, manual_dir: Path) -> None:
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir))
    # TFDS announces a download on stdout; ours is none. Its bars go to stderr.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)


def _describe(data: ReidData) -> dict[str, Any]:
    splits = {side: getattr(data, side) for side in SIDES}
    return {
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
    }


def _read(builder: ReidStore, stored: dict[str, Any]) -> ReidData:
    splits = {}
    for side, labels in stored["splits"].items():
        names = tuple(labels["names"])
        splits[side] = ReidSplit(
            StoredImages(builder, side, names) if names else (),
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
