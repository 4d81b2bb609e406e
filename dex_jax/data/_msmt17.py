"""MSMT17, first and second release."""

import re
from pathlib import Path

from dex_jax.data._label_files import read_lines
from dex_jax.data._records import Protocol, ReidData
from dex_jax.data._source import Listed, Source, find_root

OBTAIN = "Its authors give it out on request (research only)."
FOLDERS = ("MSMT17_V1", "MSMT17_V2")
NAME = re.compile(r"(?:.*/)?\d+_\d+_(\d{1,2})_[^/]*\.jpg")
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
        on_bad_image: "error" or "skip" (leave out and count).
        verify: decode every image once, so that the error lists all bad ones.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: all that is wrong with its files, the first 20 with their lines.
    """
    lists = tuple(f"list_{w}.txt" for w in ("train", "val", "query", "gallery"))
    folder = find_root("MSMT17", root, lists, FOLDERS, OBTAIN)
    second = (folder / "mask_train_v2").is_dir()
    train, test = ("mask_train_v2", "mask_test_v2") if second else ("train", "test")
    source = Source("msmt17", folder, on_bad_image=on_bad_image, verify=verify)
    read = {
        name: _read(source, name, train if i < 2 else test)
        for i, name in enumerate(lists)
    }
    sides = {
        "train": read[lists[0]] + read[lists[1]],
        "query": read[lists[2]],
        "gallery": read[lists[3]],
    }
    behind = 1 + max((image.identity for image in sides["train"]), default=0)
    for side in ("query", "gallery"):
        sides[side] = [i._replace(identity=i.identity + behind) for i in sides[side]]
    return source.finish(sides, Protocol("MSMT17", True), published=PUBLISHED)


def _read(source: Source, listing: str, place: str) -> list[Listed]:
    path = source.root / listing
    images = []
    for number, fields in read_lines(path):
        match = NAME.fullmatch(fields[0])
        if len(fields) != 2 or match is None:
            source.problems.add(
                "not an image of MSMT17",
                path,
                line=number,
                value=" ".join(fields),
                expected="0000/0000_000_01_...jpg and identity",
            )
            continue
        identity = source.number(fields[1], "identity", path, number)
        name = f"{place}/{fields[0]}"
        images.append(Listed(name, identity, int(match[1]), file=listing, line=number))
    return images
