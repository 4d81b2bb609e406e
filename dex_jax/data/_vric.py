"""VRIC: one probe and one gallery image for each test identity."""

from pathlib import Path

from dex_jax.data._label_files import Line
from dex_jax.data._reader import Listed, Source, find_root, keep_apart
from dex_jax.data._records import Protocol, ReidData

OBTAIN = "Its authors give it out for research only."
SIDES = {"train": "train", "query": "probe", "gallery": "gallery"}
PUBLISHED = {
    "train images": 54_808,
    "query images": 2_811,
    "gallery images": 2_811,
}


def load_vric(
    root: str | Path, *, on_bad_image: str = "error", verify: bool = False
) -> ReidData:
    """Reads VRIC.

    Train and test number their identities each from the beginning, so test identities
    are moved behind those of train.

    Args:
        root: the folder with vric_train.txt, or one that holds it.
        on_bad_image: "error" or "skip" (leave out and count).
        verify: decode every image once, so that the error lists all bad ones.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: all that is wrong with its files, the first 20 with their lines.
    """
    lists = tuple(f"vric_{word}.txt" for word in SIDES.values())
    folder = find_root("VRIC", root, lists, ("VRIC",), OBTAIN)
    source = Source("vric", folder, on_bad_image=on_bad_image, verify=verify)
    sides = {side: _read(source, word) for side, word in SIDES.items()}
    return source.finish(
        keep_apart(sides), Protocol("VRIC single shot"), published=PUBLISHED
    )


def _read(source: Source, word: str) -> list[Listed]:
    path = source.root / f"vric_{word}.txt"

    def parse(line: Line) -> Listed | None:
        if len(line.fields) != 3:
            return None
        name, identity, camera = line.fields
        return Listed(
            f"{word}_images/{name}",
            source.number(identity, "identity", path, line.number),
            source.number(camera, "camera", path, line.number),
        )

    return source.read_list(path, parse, expected="image, identity and camera")
