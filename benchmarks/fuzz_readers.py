"""What `benchmarks.fuzz` reads: each reader with the good files that it starts from.

A reader of your own is one line of `READERS`.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.checkpoint_files import write_checkpoints
from configs import demo
from dex_jax import data, embeddings, evaluation, models, runs

QUERIES, GALLERY = 3, 5


class Reader(NamedTuple):
    """A reader and its good files.

    Attributes:
        write: fills a folder, returns what is to be read in it: files, or folders of
            which one file is spoiled.
        read: reads one of them; AssertionError where the answer is wrong.
        errors: names of its own types of error, beside ValueError, FileNotFoundError.
        spoils: pattern of the files in a folder that are spoiled.
        names: what an error may name in place of the file.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    errors: tuple[str, ...] = ()
    spoils: str = "*"
    names: tuple[str, ...] = ()


def _features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((QUERIES + GALLERY, 4)).astype(np.float32)
    return rows[:QUERIES], rows[QUERIES:]


def _names(side: str, count: int) -> tuple[str, ...]:
    return tuple(f"{side}/{row}.jpg" for row in range(count))


def write_images(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    files = [folder / f"a.{end}" for end in ("png", "jpg", "bmp", "webp", "gif", "tif")]
    for file in files:
        picture.save(file)
    grey = folder / "deep.png"
    Image.fromarray(rng.integers(0, 2**16, (24, 32), np.uint16)).save(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = folder / "turned.jpg"
    picture.save(turned, exif=exif)
    return [*files, grey, turned]


def write_npz(folder: Path) -> list[Path]:
    query, gallery = _features()
    file = embeddings.EmbeddingFile(
        query,
        gallery,
        _names("query", QUERIES),
        _names("gallery", GALLERY),
        query_identities=np.arange(QUERIES),
        gallery_identities=np.arange(GALLERY),
        query_tracklets=np.arange(QUERIES),
        gallery_tracklets=np.arange(GALLERY),
        meta={"model": "any", "scales": [1.0]},
    )
    embeddings.save(file, folder / "embeddings.npz")
    return [folder / "embeddings.npz"]


def write_pair(folder: Path) -> list[Path]:
    pair = folder / "pair"
    pair.mkdir()
    for side, rows in zip(("query", "gallery"), _features(), strict=True):
        np.save(pair / f"{side}.npy", rows)
    return [pair]


def write_mat(folder: Path) -> list[Path]:
    from scipy.io import savemat

    query, gallery = _features()
    arrays = {
        "query_f": query,
        "gallery_f": gallery,
        "query_label": np.arange(QUERIES),
        "gallery_label": np.arange(GALLERY),
    }
    files = [folder / "plain.mat", folder / "packed.mat"]
    for file in files:
        savemat(file, arrays, do_compression=file.stem == "packed")
    return files


def write_rankings(folder: Path) -> list[Path]:
    ids = np.array([np.roll(np.arange(GALLERY), row) for row in range(QUERIES)])
    evaluation.write_submission(folder / "track2.txt", ids, gallery=GALLERY)
    np.save(folder / "distances.npy", ids.astype(np.float32))
    return [folder / "track2.txt", folder / "distances.npy"]


def read_ranking(path: Path) -> object:
    return evaluation.read_ranking(path, queries=QUERIES, gallery=GALLERY)


def _rows() -> list[dict[str, str]]:
    splits = ("train", "train", "query", "gallery")
    return [
        {
            "path": f"{number}.png",
            "split": split,
            "identity": str(min(number, 2)),
            "camera": f"c{number}",
            "tracklet": str(number),
        }
        for number, split in enumerate(splits)
    ]


def write_manifests(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, files = _rows(), []
    for kind in ("csv", "parquet"):
        (folder / kind).mkdir()
        for row in rows:
            Image.new("RGB", (4, 4)).save(folder / kind / row["path"])
        files.append(folder / kind / f"set.{kind}")
    with files[0].open("w", newline="") as table:
        writer = csv.DictWriter(table, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), files[1])
    return [file.parent for file in files]


def read_manifest(folder: Path) -> object:
    return data.load("manifest", root=folder / f"set.{folder.name}")


def _train() -> data.ReidSplit:
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    return data.ReidSplit(pixels, _names("train", 3), np.array([3, 1, 2]))


def write_run(folder: Path) -> list[Path]:
    run = folder / "run"
    runs.save_config(run, demo.get_config())
    runs.save_classes(run, "some-set", _train())
    runs.save_protocols(run, {"validation": data.Protocol("some rule")})
    return [run]


def read_run(folder: Path) -> object:
    config = runs.load_config(folder)
    runs.check_settings(config)
    runs.save_classes(folder, "some-set", _train())
    runs.load_protocols(folder)
    return config


def _described() -> evaluation.Descriptors:
    return evaluation.Descriptors(_features()[1], 1.0, reused=False)


def write_cache(folder: Path) -> list[Path]:
    evaluation.Cache(folder / "cache").get({"n": 1}, _described)
    return [folder / "cache"]


def read_cache(folder: Path) -> object:
    """What is damaged is made anew: never an error, never other values."""
    found = evaluation.Cache(folder).get({"n": 1}, _described)
    assert np.array_equal(found.features, _described().features), "other values"
    return found


READERS: dict[str, Reader] = {
    "checkpoints": Reader(write_checkpoints, models.read_torch_checkpoint),
    "images": Reader(write_images, data.decode, errors=("ImageError",)),
    "embeddings .npz": Reader(write_npz, embeddings.read),
    "embeddings .npy": Reader(write_pair, embeddings.read),
    "embeddings .mat": Reader(write_mat, embeddings.read),
    "rankings": Reader(write_rankings, read_ranking),
    "manifests": Reader(write_manifests, read_manifest, spoils="set.*"),
    "runs": Reader(write_run, read_run, errors=("RunError",), names=("config.",)),
    "cache": Reader(write_cache, read_cache),
}
