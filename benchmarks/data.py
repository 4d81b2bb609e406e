"""Reading of images, and the scan and build of a set of CityFlow's size.

python benchmarks/data.py road      images/s, one decoding thread
python benchmarks/data.py build     56,277 files: scan, build, second start
"""

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from dex_jax.data import ImageFiles, ReidSplit, load
from dex_jax.pipeline import IdentityBatches, augment, train_batches

SIZE = 288
TRAIN, GALLERY, QUERY = 36_935, 18_290, 1_052
LOAD = "from dex_jax.data import load; load('cityflow', data_dir={!r})"


def jpegs(number: int, shape: tuple[int, int]) -> list[bytes]:
    """Smooth pictures with some noise, about as large as photographs compress to."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = np.asarray(
            coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        )
        noisy = smooth + rng.normal(0, 6, smooth.shape)
        stream = io.BytesIO()
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


def report(what: str, images: int, wall: float, cpu: float) -> None:
    print(
        f"{what:<52} {images / wall:9,.0f} images/s  "
        f"{images / cpu:9,.0f} images/s of CPU time"
    )


def road(folder: Path, seconds: float) -> None:
    for shape in ((220, 260), (300, 400)):
        names = tuple(f"{shape[1]}x{shape[0]}_{i}.jpg" for i in range(512))
        for name, content in zip(names, jpegs(512, shape), strict=True):
            (folder / name).write_bytes(content)
        split = ReidSplit(ImageFiles(folder, names), names, np.repeat(range(64), 8))
        batches = IdentityBatches(split.identities)
        size = f"{shape[1]} x {shape[0]} JPEG -> {SIZE}"
        for label, memory in (("decoded anew", 0), ("kept", 2 << 30)):
            iterator = train_batches(
                split, batches, image_size=SIZE, workers=1, memory=memory
            )
            with contextlib.closing(iterator):
                # Long enough to have kept every image.
                for _ in range(64 if memory else 2):
                    next(iterator)
                run(f"{size}, {label}", lambda i=iterator: next(i).images, seconds)
    images = np.random.default_rng(0).integers(0, 256, (32, SIZE, SIZE, 3), np.uint8)
    step = jax.jit(augment)
    keys = iter(jax.random.split(jax.random.key(0), 10_000))
    step(next(keys), images).block_until_ready()
    run(
        f"augment in the jitted step at {SIZE}, batch 32",
        lambda: step(next(keys), images).block_until_ready(),
        seconds,
    )
    rng = np.random.default_rng(0)
    run(
        f"the same in numpy in a worker at {SIZE}, batch 32",
        lambda: augment_on_host(rng, images),
        seconds,
    )


def run(what: str, take, seconds: float) -> None:
    images, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        images += len(take())
    report(what, images, time.perf_counter() - wall, time.process_time() - cpu)


def augment_on_host(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Flip, contrast, brightness, normalisation, a box: what `augment` does."""
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    out = np.empty(images.shape, np.float32)
    for i, image in enumerate(images):
        x = image.astype(np.float32) / 255
        if rng.random() < 0.5:
            x = x[:, ::-1]
        grey = float(np.mean(x @ np.array([0.299, 0.587, 0.114], np.float32)))
        x = np.clip(grey + np.float32(rng.uniform(0.9, 1.1)) * (x - grey), 0, 1)
        x = np.clip(np.float32(rng.uniform(0.9, 1.1)) * x, 0, 1)
        out[i] = (x - mean) / std
        if rng.random() < 0.5:
            area = rng.uniform(0.02, 0.4) * SIZE * SIZE
            ratio = rng.uniform(0.3, 1 / 0.3)
            h = min(round((area * ratio) ** 0.5), SIZE - 1)
            w = min(round((area / ratio) ** 0.5), SIZE - 1)
            top, left = rng.integers(SIZE - h + 1), rng.integers(SIZE - w + 1)
            out[i, top : top + h, left : left + w] = 0
    return out


def make_cityflow(root: Path) -> None:
    """A tree of the published size: random labels, one track a camera and identity."""
    pool = jpegs(64, (220, 260))
    for side, number in (("train", TRAIN), ("test", GALLERY), ("query", QUERY)):
        folder = root / f"image_{side}"
        folder.mkdir(parents=True)
        names = [f"{i + 1:06d}.jpg" for i in range(number)]
        for i, name in enumerate(names):
            (folder / name).write_bytes(pool[i % 64])
        (root / f"name_{side}.txt").write_text("\n".join(names) + "\n")
    tracks = np.sort(np.random.default_rng(0).integers(0, 1897, TRAIN))
    items = "\n".join(
        f'<Item imageName="{i + 1:06d}.jpg" vehicleID="{1 + t % 333:04d}" '
        f'cameraID="c{1 + t // 333:03d}" />'
        for i, t in enumerate(tracks)
    )
    (root / "train_label.xml").write_text(
        '<?xml version="1.0" encoding="gb2312" ?>\n<TrainingImages Version="1.0">'
        f'<Items number="{TRAIN}">\n{items}\n</Items></TrainingImages>\n'
    )
    lists = [np.flatnonzero(tracks == t) + 1 for t in range(1897)]
    text = "".join(" ".join(map(str, numbers)) + " \n" for numbers in lists)
    (root / "train_track_id.txt").write_text(text)
    (root / "test_track_id.txt").write_text(
        "".join(f"{i + 1} \n" for i in range(GALLERY))
    )


def build(folder: Path) -> None:
    root, stores = folder / "AIC20_ReID", folder / "stores"
    timed("make the files", lambda: make_cityflow(root))
    timed("scan (load from the files)", lambda: load("cityflow", root=root))
    timed(
        "verify and build into ArrayRecord",
        lambda: load("cityflow", root=root, data_dir=stores),
    )
    command = [sys.executable, "-W", "ignore", "-c", LOAD.format(str(stores))]
    timed("second start, a new process", lambda: subprocess.run(command, check=True))
    data = load("cityflow", data_dir=stores)
    rng = np.random.default_rng(0)
    indices = iter(rng.integers(0, TRAIN, 100_000).tolist())
    run(
        "decode one at a time from the store",
        lambda: [data.train.images[next(indices)]],
        10,
    )


def timed(what: str, action) -> None:
    start = time.perf_counter()
    action()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:<52} {time.perf_counter() - start:8.1f} s   peak {peak:.2f} GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["road", "build"])
    parser.add_argument("--folder", help="where to make the files (default: temporary)")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        if given.what == "road":
            road(Path(name), given.seconds)
        else:
            build(Path(name))
