"""Altered files: every reader of data sets reads them or says what is wrong."""

import io
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import ReidData, decode
from dex_jax.data._catalog import LOADERS
from tests.data import fake_sets

# A reader takes a folder and a content that it writes into one file, and reads it.
Reader = Callable[[Path, bytes], object]
OURS = (ValueError, FileNotFoundError)
WORDS = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a pair of UTF-16
    b"9" * 400,
    b"-1",
    b"nan",
    b"1e400",
    b"../../etc/passwd",
    b"/etc/passwd",
    b"\\\\host\\x",
    b'"',
    b"\r",
    b"\n\n",
    b"\xe2\x80\xa8",
    b"<!DOCTYPE x>",
    b"<a>" * 500,
    b"&#0;&lol;",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x00\x01\x00\x00",
    b"x" * 140_000,
)


def altered(content: bytes, rng: random.Random) -> bytes:
    """Changes a few places of a file, at its beginning more often than elsewhere."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = min(len(found), rng.choice((64, 512, 1 << 20)))
        at = rng.randrange(end + 1)
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = bytes([rng.randrange(256)])
            case 1 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 2:
                del found[at : at + rng.choice((1, 2, 4, 64))]
            case 3:
                found[at:at] = rng.choice(WORDS)
            case 4:
                found[at : at + 4] = rng.choice(WORDS[-4:-1])
            case 5 if rng.random() < 0.2:
                del found[at:]
    return bytes(found)


def picture(form: str, image: Image.Image | None = None, **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    return fake_sets.encoded(image or Image.fromarray(values), form, **options)


def pictures() -> list[bytes]:
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    palette = Image.new("RGB", (30, 20), (1, 2, 3)).quantize(4)
    return [
        picture("JPEG", exif=exif, progressive=True),
        picture("JPEG", Image.new("CMYK", (30, 20))),
        picture("MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        picture("PNG", exif=exif),
        picture("PNG", deep),
        picture("PNG", palette, transparency=b"\0\x80"),
        picture("BMP"),
        picture("GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        picture("PPM"),
        picture("PPM", Image.new("1", (30, 20))),
        picture("TIFF", deep),
        picture("TIFF", compression="tiff_lzw", exif=exif),
        picture("TIFF", compression="jpeg"),
        picture("WEBP", exif=exif),
        picture("WEBP", lossless=True),
    ]


def read_picture(folder: Path, content: bytes) -> object:
    (folder / "a.jpg").write_bytes(content)
    image = decode(folder / "a.jpg")
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return image


def read_set(name: str, file: str, **options: Any) -> Reader:
    def read(folder: Path, content: bytes) -> ReidData:
        (folder / file).write_bytes(content)
        return LOADERS[name](folder, **options)

    return read


def read_manifest(ending: str) -> Reader:
    def read(folder: Path, content: bytes) -> ReidData:
        path = folder / f"cars.{ending}"
        path.write_bytes(content)
        return LOADERS["manifest"](path)

    return read


def read_annotation(ending: str) -> Reader:
    def read(folder: Path, content: bytes) -> ReidData:
        path = folder / f"query.{ending}"
        path.write_bytes(content)
        labels: Any = {"query_labels": path}
        return LOADERS["cityflow"](folder, on_bad_image="later", **labels)

    return read


HEADER = "path,split,identity,camera,tracklet,domain"
TABLE = [
    "image_query/000001.jpg,train,17,c2,t5,real",
    "image_query/000002.jpg,query,v90,1.0,,",
    '"image_query/000003.jpg",gallery,v90,2,,',
    "image_query/000004.jpg,gallery,-1,nan,,sim",
]


def attack(
    read: Reader, folder: Path, content: bytes, *, count: int, seed: int
) -> dict[str, int]:
    """Reads altered contents; counts what came of them, by the names of the errors."""
    rng = random.Random(seed)
    found: dict[str, int] = {}
    for _ in range(count):
        try:
            read(folder, altered(content, rng))
            kind = "read"
        except OURS as error:
            kind = type(error).__name__
            str(error).encode()  # can be shown
        found[kind] = found.get(kind, 0) + 1
    return found


@pytest.fixture
def city(tmp_path):
    return fake_sets.cityflow(tmp_path)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("number", range(len(pictures())))
def test_pictures(tmp_path, number):
    content = pictures()[number]
    found = attack(read_picture, tmp_path, content, count=40, seed=number)
    assert set(found) <= {"read", "ValueError", "ImageError"}
    assert found.get("ImageError", 0) > 2


@pytest.mark.parametrize(
    "file",
    ["train_label.xml", "name_query.txt", "test_track_id.txt"],
)
def test_label_files(city, file):
    content = (city / file).read_bytes()
    found = attack(read_set("cityflow", file), city, content, count=25, seed=1)
    assert found.get("ValueError", 0) > 2


@pytest.mark.parametrize(
    ("name", "tree", "file"),
    [
        ("veri776", fake_sets.veri, "test_track.txt"),
        ("veri776", fake_sets.veri, "gt_index.txt"),
        ("vehicleid", fake_sets.vehicleid, "train_test_split/test_list_800.txt"),
        ("veriwild", fake_sets.veriwild, "train_test_split/vehicle_info.txt"),
        ("vric", fake_sets.vric, "vric_train.txt"),
        ("msmt17", fake_sets.msmt, "list_train.txt"),
    ],
)
def test_lists(tmp_path, name, tree, file):
    root = tree(tmp_path)
    content = (root / file).read_bytes()
    attack(read_set(name, file), root, content, count=25, seed=2)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_manifests(city, ending):
    lines = [HEADER, *TABLE]
    content = "\n".join(lines).encode()
    if ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        fields = [line.replace('"', "").split(",") for line in lines]
        columns = dict(zip(fields[0], zip(*fields[1:], strict=True), strict=True))
        stream = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), stream)
        content = stream.getvalue()
    found = attack(read_manifest(ending), city, content, count=120, seed=3)
    assert found.get("ValueError", 0) > 20


@pytest.mark.parametrize("ending", ["npy", "txt"])
def test_annotations(city, ending):
    rows = np.array([[6, 96], [6, 96], [7, 97], [8, 98]])
    stream = io.BytesIO()
    if ending == "npy":
        np.save(stream, rows)
    else:
        np.savetxt(stream, rows, fmt="%d")
    content = stream.getvalue()
    found = attack(read_annotation(ending), city, content, count=60, seed=4)
    assert found.get("ValueError", 0) > 20


def test_entities_are_refused_before_they_grow(city):
    entities = '<!ENTITY a0 "lol">' + "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)
    )
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><x>&a11;</x>'
    (city / "train_label.xml").write_text(bomb)
    with pytest.raises(ValueError, match="document type declaration is not read"):
        LOADERS["cityflow"](city)


@pytest.mark.parametrize(
    "file",
    [
        "train_label.xml",
        "name_query.txt",
        "test_track_id.txt",
        "image_query/000001.jpg",
    ],
)
def test_pipes_are_not_opened(city, file):
    """Reading one would never end."""
    (city / file).unlink()
    os.mkfifo(city / file)
    with pytest.raises(ValueError, match=r"is a pipe, socket or device|file not found"):
        LOADERS["cityflow"](city)
