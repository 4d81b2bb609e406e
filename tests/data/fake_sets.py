"""Tiny trees in the exact syntax of the published sets, their quirks included."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dex_jax.data import ReidSplit

HEADER = '<?xml version="1.0" encoding="gb2312" ?>'


def jpeg(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


PIXELS = jpeg()


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def images(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXELS)


def text(path: Path, lines: list[str], *, end: str = "\n", last: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + (end if last else "")).encode())


def xml(
    path: Path, items: list[dict[str, str]], *, end: str = "\n", header: str = HEADER
) -> None:
    rows = [
        "        <Item " + " ".join(f'{k}="{v}"' for k, v in item.items()) + " />"
        for item in items
    ]
    lines = [
        header,
        '<TrainingImages Version="1.0">',
        f'    <Items number="{len(items)}">',
        *rows,
        "    </Items>",
        "</TrainingImages>",
    ]
    text(path, lines, end=end)


# Six training vehicles (ids with gaps) at three cameras with four images each, so
# that track t holds the images 4 t + 1 .. 4 t + 4; the last track has one image.
TRAIN = [
    (f"{4 * t + k + 1:06d}.jpg", identity, camera)
    for t, (identity, camera) in enumerate(
        (identity, camera) for identity in (3, 41, 478, 7, 9, 8) for camera in (6, 7, 9)
    )
    for k in range(4)
][:-3]


def cityflow(root: Path, *, edition: int = 2020) -> Path:
    """Image numbers restart in each folder; the names say nothing else."""
    root = root / "AIC20_ReID"
    test = [f"{i:06d}.jpg" for i in range(1, 10)]
    query = [f"{i:06d}.jpg" for i in range(1, 5)]
    for folder, names in (
        ("image_train", [name for name, _, _ in TRAIN]),
        ("image_test", test),
        ("image_query", query),
    ):
        images(root / folder, names)
    text(root / "name_train.txt", [name for name, _, _ in TRAIN])
    text(root / "name_test.txt", test)
    text(root / "name_query.txt", query)
    items = [
        {"imageName": n, "vehicleID": f"{i:04d}", "cameraID": f"c{c:03d}"}
        for n, i, c in reversed(TRAIN)
    ]
    xml(root / "train_label.xml", items)
    tracks = [TRAIN[i : i + 4] for i in range(0, len(TRAIN), 4)]
    numbers = [[str(int(n[:6])) for n, _, _ in reversed(t)] for t in tracks]
    if edition == 2020:
        text(root / "train_track_id.txt", [" ".join(t) + " " for t in numbers])
        text(root / "test_track_id.txt", ["1 3 2 ", "4 ", "9 8 7 6 5 "])
    # Every line lacks its last image: one line is empty, and numbers must not shift.
    names = [[f"{int(n):06d}.jpg" for n in track[:-1]] for track in numbers]
    text(root / "train_track.txt", [" ".join(t) + " " if t else "" for t in names])
    test_tracks = [test[0:3], test[3:4], test[4:9]]
    text(root / "test_track.txt", [" ".join(t) + " " for t in test_tracks])
    if edition == 2021:
        for side, listed in (("test", test), ("query", query)):
            rows = [{"imageName": n, "cameraID": "c010"} for n in listed]
            xml(root / f"{side}_label.xml", rows)
    return root


SIM = [f"{i:04d}_c{c:03d}_{k}.jpg" for i in (3, 41) for c in (6, 7) for k in (1, 2)]


def simulation(root: Path, *, folder: str = "sys_image_train") -> Path:
    """Identities and cameras that CityFlow has too."""
    images(root / folder, SIM)
    items = [
        {
            "imageName": name,
            "vehicleID": name[:4],
            "cameraID": name[5:9],
            "colorID": "3",
            "orientation": "210.5",
        }
        for name in SIM
    ]
    xml(root / "train_label.xml", items[::-1])
    return root


VERI_TRAIN = [
    f"{i:04d}_c{c:03d}_0001234{k}_0.jpg"
    for i in (1, 5)
    for c in (1, 20)
    for k in (1, 2)
]
VERI_TEST = [
    f"{i:04d}_c{c:03d}_0000567{k}_1.jpg"
    for i in (2, 776)
    for c in (3, 4, 19)
    for k in (1, 2)
]
VERI_QUERY = [VERI_TEST[0], VERI_TEST[4], VERI_TEST[6]]


def veri(root: Path) -> Path:
    """Queries are gallery images too; index files count from 1; CRLF; unsorted."""
    root = root / "VeRi"
    for folder, names in (
        ("image_train", VERI_TRAIN),
        ("image_test", VERI_TEST),
        ("image_query", VERI_QUERY),
    ):
        images(root / folder, names)
    text(root / "name_train.txt", VERI_TRAIN[::-1], end="\r\n", last=False)
    text(root / "name_test.txt", VERI_TEST)
    text(root / "name_query.txt", VERI_QUERY)
    items = [
        {
            "imageName": n,
            "vehicleID": n[:4],
            "cameraID": n[5:9],
            "colorID": "2",
            "typeID": "0",
        }
        for n in VERI_TRAIN[:-1]  # one image is missing
    ]
    xml(root / "train_label.xml", items, end="\r\n")
    good, junk = [], []
    for q in VERI_QUERY:
        same = [(r, n) for r, n in enumerate(VERI_TEST, 1) if n[:4] == q[:4]]
        good.append(" ".join(str(r) for r, n in same if n[5:9] != q[5:9]) + " ")
        junk.append(" ".join(str(r) for r, n in same if n[5:9] == q[5:9]) + " ")
    text(root / "gt_index.txt", good)
    text(root / "jk_index.txt", junk)
    # A track is smaller than (identity, camera): the first pair is two tracks. Some
    # copies have no track label in front.
    lines = [f"{VERI_TEST[0][:9]} {VERI_TEST[0]} ", f"{VERI_TEST[1]} "]
    lines += [
        f"{VERI_TEST[i][:9]} {VERI_TEST[i]} {VERI_TEST[i + 1]} "
        for i in range(2, len(VERI_TEST), 2)
    ]
    text(root / "test_track.txt", lines)
    return root


def vehicleid(root: Path) -> Path:
    """Names without suffix, identities from 0, no cameras."""
    root = root / "VehicleID_V1.0"
    train = [(f"{100 + i:07d}", i // 3) for i in range(9)]
    test = [(f"{900 + i:07d}", 50 + i // 4) for i in range(12)]
    images(root / "image", [f"{name}.jpg" for name, _ in train + test])
    split = root / "train_test_split"
    text(split / "train_list.txt", [f"{n} {i}" for n, i in train])
    text(split / "test_list_800.txt", [f"{n} {i}" for n, i in test])
    # Some copies write the suffix, under another name.
    text(split / "test_1600.txt", [f"{n}.jpg {i}" for n, i in test])
    return root


def veriwild(root: Path) -> Path:
    """Lists in the old form and in the new; a camera table with a header."""
    root = root / "VERI-Wild"
    train = [f"{i:05d}/{i * 10 + k:06d}" for i in (1, 2) for k in range(3)]
    test = [f"{i:05d}/{i * 10 + k:06d}" for i in (7, 9) for k in range(4)]
    images(root / "images", [f"{name}.jpg" for name in train + test])
    split = root / "train_test_split"
    text(split / "train_list.txt", train)
    text(split / "test_3000.txt", test)
    text(split / "test_3000_query.txt", test[::4])
    new = [f"{n}.jpg {r} {1 + int(n[-1]) // 2}" for r, n in enumerate(test)]
    text(split / "test_5000_id.txt", new)
    text(split / "test_5000_id_query.txt", new[::4])
    rows = [f"{n};{1 + int(n[-1]) // 2};2018-03-10 08:11:02;x;y" for n in train + test]
    text(split / "vehicle_info.txt", ["id/image;Camera ID;Time;Model;Color", *rows])
    return root


def vric(root: Path) -> Path:
    """Train and test number their identities each from 0."""
    root = root / "VRIC"
    sides = {
        "train": [(f"a{i}.jpg", i // 2, 1 + i % 2) for i in range(6)],
        "probe": [(f"b{i}.jpg", i, 60) for i in range(3)],
        "gallery": [(f"c{i}.jpg", i, 59) for i in range(3)],
    }
    for word, rows in sides.items():
        images(root / f"{word}_images", [name for name, _, _ in rows])
        text(root / f"vric_{word}.txt", [f"{n} {i} {c}" for n, i, c in rows])
    return root


def market(root: Path) -> Path:
    """Junk, distractors and files that are no images of the set."""
    root = root / "Market-1501-v15.09.15"
    folders = {
        "bounding_box_train": ["0002_c1s1_000451_03", "0002_c2s1_000301_01"],
        "query": ["0001_c1s1_001051_00", "0003_c6s3_000001_00"],
        "bounding_box_test": [
            "-1_c1s1_000401_03",
            "0000_c1s1_000151_01",
            "0001_c2s1_001976_01",
            "0003_c5s3_000011_02",
        ],
    }
    for folder, names in folders.items():
        images(root / folder, [f"{name}.jpg" for name in names])
        (root / folder / "Thumbs.db").write_bytes(b"x")
    return root


def duke(root: Path) -> Path:
    root = root / "DukeMTMC-reID"
    images(root / "bounding_box_train", ["0001_c2_f0046182.jpg"])
    images(root / "query", ["0005_c1_f0049212.jpg"])
    images(root / "bounding_box_test", ["0005_c8_f0049333.jpg", "7100_c3_f0001234.jpg"])
    return root


def msmt(root: Path, *, release: int = 1) -> Path:
    """Identities restart at 0 in the test lists."""
    root = root / f"MSMT17_V{release}"
    train, test = (
        ("mask_train_v2", "mask_test_v2") if release == 2 else ("train", "test")
    )
    lists = {
        "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0"],
        "val": ["0001/0001_003_15_0399noon_0042_1_ex.jpg 1"],
        "query": ["0000/0000_001_05_0302afternoon_0012_0.jpg 0"],
        "gallery": [
            "0000/0000_009_14_0302afternoon_0014_0.jpg 0",
            "0001/0001_001_05_0302morning_0001_2.jpg 1",
        ],
    }
    for name, lines in lists.items():
        folder = root / (train if name in ("train", "val") else test)
        images(folder, [line.split()[0] for line in lines])
        text(root / f"list_{name}.txt", lines)
    return root


def empty_split() -> ReidSplit:
    """A split without images."""
    return ReidSplit((), (), np.empty(0, np.int64))
