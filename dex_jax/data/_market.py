"""Market-1501 and DukeMTMC-reID: folders whose file names are the labels."""

import re
from pathlib import Path

from dex_jax._checks import check_choice
from dex_jax.data._decode import SUFFIXES, is_picture
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import UNKNOWN, Protocol, ReidData

FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
}
MARKET_ORIGIN = Origin(
    "market1501",
    "Market-1501",
    marks=tuple(FOLDERS.values()),
    below=("Market-1501-v15.09.15", "market1501"),
    obtain="Its authors publish it for research.",
)
DUKE_ORIGIN = Origin(
    "dukemtmc",
    "DukeMTMC-reID",
    marks=tuple(FOLDERS.values()),
    below=("DukeMTMC-reID",),
    obtain="Its authors withdrew it in 2019; a copy that is there is read.",
)
# Copies and people's own sets number more identities and cameras, and what follows
# them tells nothing.
NAME = re.compile(r"(-1|[0-9]{1,9})_c([0-9]{1,4})(?![0-9]).*")
MARKET_COUNTS = {
    "train images": 12_936,
    "train identities": 751,
    "train cameras": 6,
    "query images": 3_368,
    "query identities": 750,
}
GALLERY_COUNTS = {"drop": 15_913, "keep": 19_732}
DUKE_COUNTS = {
    "train images": 16_522,
    "train identities": 702,
    "train cameras": 8,
    "query images": 2_228,
    "query identities": 702,
    "gallery images": 17_661,
}


def load_market1501(
    root: str | Path,
    *,
    junk: str = "drop",
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads Market-1501.

    Identity 0 are distractors and stay as negatives; identity -1 is junk. Folders of
    one's own may hold any number of identities and cameras, and any format that
    `dex_jax.data.decode` reads: names begin with identity and camera, `12345_c17`.

    Args:
        root: the folder with bounding_box_train, or one that holds it.
        junk: "drop" the junk images of the gallery (15,913 remain, as in most
            papers) or "keep" them as identity -1 (19,732).
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    check_choice(junk, "junk", ("drop", "keep"))
    reader = open_reader(MARKET_ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    sides = {side: _read(reader, side) for side in FOLDERS}
    if junk == "drop":
        kept = [image for image in sides["gallery"] if image.identity != UNKNOWN]
        reader.notes.append(
            f"{len(sides['gallery']) - len(kept):,} junk images of the gallery dropped"
        )
        sides["gallery"] = kept
    published = MARKET_COUNTS | {"gallery images": GALLERY_COUNTS[junk]}
    return reader.finish(sides, Protocol("Market-1501", True), published=published)


def load_dukemtmc(
    root: str | Path, *, on_bad_image: str = "error", verify: bool = False
) -> ReidData:
    """Reads DukeMTMC-reID, in the folders of Market-1501.

    Args:
        root: the folder with bounding_box_train, or one that holds it.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    reader = open_reader(DUKE_ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    sides = {side: _read(reader, side) for side in FOLDERS}
    return reader.finish(sides, Protocol("DukeMTMC-reID", True), published=DUKE_COUNTS)


def _read(reader: Reader, side: str) -> list[Listed]:
    folder = FOLDERS[side]
    images, others = [], []
    for name in sorted(path.name for path in (reader.root / folder).iterdir()):
        match = NAME.fullmatch(name)
        if match and is_picture(name):
            name = f"{folder}/{name}"
            images.append(Listed(name, int(match[1]), int(match[2]), file=name))
        else:
            others.append(name)
    if others:
        reader.notes.append(
            f"{folder}: {len(others)} other file(s) are not read, first {others[0]!r}: "
            "expected names such as 0002_c1s1_000451_03.jpg, which is identity 2 at "
            f"camera 1, and one of the endings {' '.join(SUFFIXES)}"
        )
    return images
