"""The AI City simulation set and VehicleX: synthetic training images."""

import re
from pathlib import Path

from dex_jax.data._decode import is_picture
from dex_jax.data._label_files import read_items
from dex_jax.data._reader import Listed, Reader, missing
from dex_jax.data._records import Protocol, ReidData

OBTAIN = (
    "The AI City Challenge gives the simulation set out with its track 2, the authors "
    "of VehicleX give out theirs (research use)."
)
FOLDERS = (
    "AIC20_ReID_Simulation",
    "AIC20_track2/AIC20_ReID_Simulation",
    "AIC21_Track2_ReID_Simulation",
)
PUBLISHED = {"train images": 192_150, "train identities": 1_362}
NAME = re.compile(r"([0-9]{1,9})_c([0-9]{1,4})_[0-9]+\.[^.]*")


def load_vehiclex(
    root: str | Path,
    *,
    images: str | None = None,
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads synthetic training images; there is no query, gallery or track file.

    Identity and camera are those of train_label.xml, or of the names
    (`0034_c012_7.jpg`) where a stand-alone copy has no label file. Their numbers
    overlap with CityFlow's and mean other vehicles and cameras, which the domain "sim"
    tells apart. The further attributes (colour, type, orientation, light, camera) are
    not used.

    Args:
        root: the folder of the set, or one that holds it, or a flat folder of images.
        images: the folder of images below `root`, such as "sys_image_train_tr" for a
            translated copy; None takes image_train, sys_image_train or `root` itself.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    folder, place = _find(Path(root), images)
    reader = Reader("vehiclex", folder, on_bad_image=on_bad_image, verify=verify)
    labels = folder / "train_label.xml"
    listed = (
        _from_labels(reader, labels, place)
        if labels.exists()
        else _from_names(reader, place)
    )
    return reader.finish(
        {"train": listed}, Protocol("training only"), published=PUBLISHED, domain="sim"
    )


def _find(root: Path, images: str | None) -> tuple[Path, str]:
    places = ("image_train", "sys_image_train") if images is None else (images,)
    for folder in (root, *(root / below for below in FOLDERS)):
        for place in places:
            if (folder / place).is_dir():
                return folder, place
    if images is None and any(
        NAME.fullmatch(path.name) for path in filter(_is_picture, root.glob("*"))
    ):
        return root, ""
    raise missing(
        "the simulation set",
        root,
        f"{' or '.join(places)} or images named like 0001_c001_1.jpg",
        OBTAIN,
    )


def _from_labels(reader: Reader, labels: Path, place: str) -> list[Listed]:
    listed = []
    for line, attributes in read_items(labels, reader.problems):
        name = attributes.get("imageName", "")
        camera = attributes.get("cameraID", "").removeprefix("c")
        listed.append(
            Listed(
                f"{place}/{name}" if place else name,
                reader.number(
                    attributes.get("vehicleID", ""), "vehicleID", labels, line
                ),
                reader.number(camera, "cameraID", labels, line),
                file=labels.name,
                line=line,
            )
        )
    return sorted(listed)


def _from_names(reader: Reader, place: str) -> list[Listed]:
    listed, strange = [], []
    for path in sorted(filter(_is_picture, (reader.root / place).iterdir())):
        match = NAME.fullmatch(path.name)
        if match is None:
            strange.append(path.name)
            continue
        name = f"{place}/{path.name}" if place else path.name
        listed.append(Listed(name, int(match[1]), int(match[2]), file=name))
    reader.notes.append(
        "no train_label.xml: identity and camera are those of the names"
    )
    if strange:
        reader.notes += [
            f"{len(strange)} file(s) of another name are left out",
            f"the first of them is {strange[0]!r}, expected was a name such as "
            "0034_c012_7.jpg: identity 34 at camera 12",
        ]
    return listed


def _is_picture(path: Path) -> bool:
    return is_picture(path.name)
