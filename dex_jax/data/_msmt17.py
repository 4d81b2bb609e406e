"""MSMT17, first and second release."""

import re
from pathlib import Path

from dex_jax.data._decode import is_picture
from dex_jax.data._label_files import Line
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import Protocol, ReidData

LISTS = tuple(f"list_{w}.txt" for w in ("train", "val", "query", "gallery"))
ORIGIN = Origin(
    "msmt17",
    "MSMT17",
    marks=LISTS,
    below=("MSMT17_V1", "MSMT17_V2"),
    obtain="Its authors give it out on request (research only).",
)
NAME = re.compile(r"(?:.*/)?[0-9]+_[0-9]+_([0-9]{1,4})_[^/]*")
PUBLISHED = {
    "train images": 32_621,
    "query images": 11_659,
    "gallery images": 82_161,
}


def load_msmt17(
    root: str | Path, *, on_bad_image: str = "error", verify: bool = False
) -> ReidData:
    """Reads MSMT17; train and val lists together are the training images.

    The lists of train and test number their identities each from 0, so test
    identities are moved behind those of train. The camera is the third field of the
    file name.

    Args:
        root: the folder with list_train.txt, or one that holds it.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    second = (reader.root / "mask_train_v2").is_dir()
    train, test = ("mask_train_v2", "mask_test_v2") if second else ("train", "test")
    read = {
        name: _read(reader, name, train if i < 2 else test)
        for i, name in enumerate(LISTS)
    }
    sides = {
        "train": read[LISTS[0]] + read[LISTS[1]],
        "query": read[LISTS[2]],
        "gallery": read[LISTS[3]],
    }
    protocol = Protocol("MSMT17", True)
    return reader.finish(sides, protocol, published=PUBLISHED, restarts=True)


def _read(reader: Reader, listing: str, place: str) -> list[Listed]:
    path = reader.root / listing

    def parse(line: Line) -> Listed | None:
        match = NAME.fullmatch(line.fields[0])
        if len(line.fields) != 2 or match is None or not is_picture(line.fields[0]):
            return None
        identity = reader.number(line.fields[1], "identity", path, line.number)
        return Listed(f"{place}/{line.fields[0]}", identity, int(match[1]))

    return reader.read_list(
        path,
        parse,
        kind="not an image of MSMT17",
        expected="0000/0000_000_01_...jpg and identity",
    )
