"""VeRi-776: identity and camera are those of the file names."""

import re
from pathlib import Path

from dex_jax._checks import check_choice
from dex_jax.data._decode import is_picture
from dex_jax.data._label_files import Line, read_items, read_lines, whole_number
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import UNKNOWN, Protocol, ReidData

ORIGIN = Origin(
    "veri776",
    "VeRi-776",
    marks=("name_train.txt", "name_test.txt", "name_query.txt"),
    pictures=("image_train",),
    below=("VeRi", "VeRi_with_plate"),
    obtain="Its authors give it out on request by e-mail (non-commercial use).",
)
NAME = re.compile(r"([0-9]{1,9})_c([0-9]{1,4})_[^/]*")
PUBLISHED = {
    "train images": 37_778,
    "train identities": 576,
    "train cameras": 20,
    "query images": 1_678,
    "gallery images": 11_579,
    "gallery identities": 200,
    "gallery cameras": 19,
    "gallery tracklets": 2_021,
}


def load_veri776(
    root: str | Path,
    *,
    protocol: str = "image",
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads VeRi-776.

    The label files lack some training images and the names tell identity and camera,
    so names decide. The published gallery holds the query images themselves; they
    stay, and the camera rule leaves them out of each ranking. Where the folder has
    gt_index.txt and jk_index.txt, that rule is checked against them. Training images
    have no track file: one (identity, camera) is one track.

    Args:
        root: the folder with name_train.txt, or one that holds it.
        protocol: "image" (each query ranks images) or "track" (it ranks the gallery's
            tracks); papers use both.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too.
        verify: see there.
    """
    check_choice(protocol, "protocol", ("image", "track"))
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    sides = {
        "train": _side(reader, "train"),
        "query": [i._replace(tracklet=UNKNOWN) for i in _side(reader, "query")],
        "gallery": _with_tracks(reader, _side(reader, "test")),
    }
    _note_labels(reader, sides["train"])
    _check_index(reader, "gt_index.txt", sides["query"], sides["gallery"], same=False)
    _check_index(reader, "jk_index.txt", sides["query"], sides["gallery"], same=True)
    unit = {"image": "image", "track": "tracklet"}[protocol]
    rule = Protocol(f"VeRi-776 image-to-{protocol}", True, gallery_unit=unit)
    return reader.finish(sides, rule, published=PUBLISHED)


def _side(reader: Reader, side: str) -> list[Listed]:
    def parse(line: Line) -> Listed | None:
        match = NAME.fullmatch(line.fields[0])
        if match is None or not is_picture(line.fields[0]):
            return None
        identity, camera = int(match[1]), int(match[2])
        track = identity * 10_000 + camera
        return Listed(f"image_{side}/{line.fields[0]}", identity, camera, track)

    return reader.read_list(
        reader.root / f"name_{side}.txt",
        parse,
        kind="not an image of VeRi-776",
        expected="a name like 0001_c001_00000001_0.jpg",
    )


def _with_tracks(reader: Reader, gallery: list[Listed]) -> list[Listed]:
    names = ("test_track.txt", "test_track_VeRi.txt")
    path = next((p for n in names if (p := reader.root / n).exists()), None)
    if path is None:
        reader.notes.append(
            "no test_track.txt: one (identity, camera) of the gallery is one track"
        )
        return gallery
    known = {image.name.removeprefix("image_test/") for image in gallery}
    tracks: dict[str, int] = {}
    for number, fields in read_lines(path):
        # A line may begin with the label of its track.
        members = fields if fields[0] in known else fields[1:]
        for name in members:
            if name not in known:
                kind = "track of an image that is not listed"
                reader.problems.add(kind, path, line=number, value=name)
            elif tracks.setdefault(name, number) != number:
                kind = "image in two tracks"
                reader.problems.add(kind, path, line=number, value=name)
    alone = len(known) - len(tracks)
    if alone:
        reader.notes.append(f"{alone} gallery image(s) are in no track and stand alone")
    return [
        image._replace(
            tracklet=tracks.get(image.name.removeprefix("image_test/"), UNKNOWN)
        )
        for image in gallery
    ]


def _note_labels(reader: Reader, train: list[Listed]) -> None:
    path = reader.root / "train_label.xml"
    if path.exists():
        labelled = {
            f"image_train/{item.attributes.get('imageName', '')}"
            for item in read_items(path, reader.problems)
        }
        lacking = sum(image.name not in labelled for image in train)
        if lacking:
            reader.notes.append(
                f"{path.name} lacks {lacking} training image(s); the names decide"
            )


def _check_index(
    reader: Reader, name: str, query: list[Listed], gallery: list[Listed], *, same: bool
) -> None:
    path = reader.root / name
    if not path.exists():
        return
    lines = read_lines(path, blank=True)
    if len(lines) < len(query):
        reader.notes.append(f"{name}: {len(lines)} lines for {len(query)} queries")
    rows: dict[int, list[tuple[int, int]]] = {}
    for row, image in enumerate(gallery, start=1):
        rows.setdefault(image.identity, []).append((row, image.camera))
    for image, (number, fields) in zip(query, lines, strict=False):
        expected = {
            row
            for row, camera in rows.get(image.identity, [])
            if (camera == image.camera) == same
        }
        if {whole_number(field) for field in fields} != expected:
            reader.notes.append(
                f"{name}, line {number}: differs from the camera rule for {image.name}"
            )
            return
