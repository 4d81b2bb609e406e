"""VRIC: one probe and one gallery image for each test identity."""

from pathlib import Path

from dex_jax.data._label_files import Line
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import Protocol, ReidData

SIDES = {"train": "train", "query": "probe", "gallery": "gallery"}
ORIGIN = Origin(
    "vric",
    "VRIC",
    marks=tuple(f"vric_{word}.txt" for word in SIDES.values()),
    below=("VRIC",),
    obtain="Its authors give it out for research only.",
)
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
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    sides = {side: _read(reader, word) for side, word in SIDES.items()}
    protocol = Protocol("VRIC single shot")
    return reader.finish(sides, protocol, published=PUBLISHED, restarts=True)


def _read(reader: Reader, word: str) -> list[Listed]:
    path = reader.root / f"vric_{word}.txt"

    def parse(line: Line) -> Listed | None:
        if len(line.fields) != 3:
            return None
        name, identity, camera = line.fields
        return Listed(
            f"{word}_images/{name}",
            reader.number(identity, "identity", path, line.number),
            reader.number(camera, "camera", path, line.number),
        )

    return reader.read_list(path, parse, expected="image, identity and camera")
