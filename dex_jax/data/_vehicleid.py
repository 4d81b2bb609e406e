"""PKU VehicleID: random galleries of one image each, without cameras."""

from itertools import compress
from pathlib import Path

import numpy as np

from dex_jax._checks import check_choice, check_count
from dex_jax.data._decode import is_picture
from dex_jax.data._label_files import Line
from dex_jax.data._random_gallery import random_gallery
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import Protocol, ReidData

SIZES = {
    "small": "800",
    "medium": "1600",
    "large": "2400",
    "3200": "3200",
    "6000": "6000",
    "13164": "13164",
}
LISTS = "train_test_split"
ORIGIN = Origin(
    "vehicleid",
    "VehicleID",
    marks=(f"{LISTS}/train_list.txt",),
    pictures=("image",),
    below=("VehicleID_V1.0", "VehicleID"),
    obtain="Peking University gives it out on request (research only).",
)
DRAWS = 10
PUBLISHED = {"train images": 113_346, "train identities": 13_164}
PUBLISHED_TEST = {"small": 6_493, "medium": 13_377, "large": 19_777}


def load_vehicleid(
    root: str | Path,
    *,
    size: str = "small",
    draw: int | None = None,
    seed: int = 0,
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads PKU VehicleID.

    One image of each test identity, drawn at random, is the gallery and all others
    are queries; the published figure is the mean over ten draws, which an evaluation
    makes from the images described once. A draw depends on the sorted list, `seed` and
    its number alone. Nothing is known of cameras and tracks.

    Args:
        root: the folder with train_test_split, or one that holds it.
        size: "small" (800 identities), "medium" (1600), "large" (2400), "3200",
            "6000" or "13164".
        draw: one of the random galleries alone, from 0; None is the first, with a
            protocol that asks for the mean over ten.
        seed: of all draws.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    check_choice(size, "size", tuple(SIZES))
    if draw is not None:
        check_count(draw, "draw", least=0)
    check_count(seed, "seed", least=0, most=None)
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    lists = reader.root / LISTS
    test = sorted(_read(reader, _test_list(lists, SIZES[size])))
    identities = np.array([image.identity for image in test], np.int64)
    chosen = random_gallery(identities, draw=draw or 0, seed=seed)
    sides = {
        "train": _read(reader, lists / "train_list.txt"),
        "query": list(compress(test, ~chosen)),
        "gallery": list(compress(test, chosen)),
    }
    published = dict(PUBLISHED)
    if size in PUBLISHED_TEST:
        published["gallery images"] = int(SIZES[size])
        published["query images"] = PUBLISHED_TEST[size] - int(SIZES[size])
    if draw is None:
        protocol = Protocol(f"VehicleID {size}", draws=DRAWS, draw_seed=seed)
    else:
        protocol = Protocol(f"VehicleID {size}, random gallery {draw}")
    return reader.finish(sides, protocol, published=published)


def _test_list(lists: Path, size: str) -> Path:
    # The published name, and that of some copies.
    names = (f"test_list_{size}.txt", f"test_{size}.txt")
    for name in names:
        if (lists / name).exists():
            return lists / name
    raise FileNotFoundError(f"{lists / names[0]}: missing list of VehicleID")


def _read(reader: Reader, path: Path) -> list[Listed]:
    def parse(line: Line) -> Listed | None:
        if len(line.fields) != 2:
            return None
        stem, identity = line.fields
        number = reader.number(identity, "identity", path, line.number)
        name = stem if is_picture(stem) else f"{stem}.jpg"
        return Listed(f"image/{name}", number)

    return reader.read_list(path, parse, expected="image and identity")
