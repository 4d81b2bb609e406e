"""CityFlow-ReID (AI City Challenge, track 2) of 2019, 2020 and 2021."""

from pathlib import Path

import numpy as np

from dex_jax._checks import check_file, read_npy
from dex_jax.data._label_files import read_items, read_lines, read_numbers
from dex_jax.data._reader import Listed, Origin, Reader, open_reader
from dex_jax.data._records import UNKNOWN, Protocol, ReidData

ORIGIN = Origin(
    "cityflow",
    "CityFlow-ReID",
    marks=("train_label.xml",),
    pictures=("image_train",),
    below=(
        "AIC20_ReID",
        "AIC20_track2/AIC20_ReID",
        "aic19-track2-reid",
        "AIC21_Track2_ReID",
    ),
    obtain="The AI City Challenge gives it out after a signed licence agreement "
    "(non-commercial academic use).",
)
PUBLISHED = {
    "2020": {
        "train images": 36_935,
        "train identities": 333,
        "train cameras": 36,
        "train tracklets": 1_897,
        "query images": 1_052,
        "gallery images": 18_290,
        "gallery tracklets": 798,
    },
    "2021": {
        "train images": 52_717,
        "train identities": 440,
        "query images": 1_103,
        "gallery images": 31_238,
    },
}

Tracks = dict[str, int]  # file name -> number of its track


def load_cityflow(
    root: str | Path,
    *,
    query_labels: str | Path | None = None,
    gallery_labels: str | Path | None = None,
    on_bad_image: str = "error",
    verify: bool = False,
) -> ReidData:
    """Reads CityFlow-ReID; the files that are there show the edition.

    The challenge keeps the test labels to itself: query and gallery are unlabelled
    unless an annotation is given. Image numbers restart in each folder, so a name is
    `image_test/000001.jpg`. Tracks come from the complete `*_track_id.txt`; where
    only the defective `train_track.txt` of 2019 and 2020 exists (it lacks the last
    image of every track), images without a track stand alone.

    Args:
        root: the folder with train_label.xml, or one that holds it.
        query_labels: an annotation of the queries: integers `[Q, 2]`, columns camera
            and identity, rows in list order; .npy or text with blanks or commas. Whole
            floating-point numbers are integers, NaN is unknown.
        gallery_labels: the same for the gallery.
        on_bad_image: see `dex_jax.data.load`, which lists the errors too. "later"
            needs the label files alone, without the folders of images.
        verify: see there.

    Returns:
        The data set, scored by mAP@100 with same-camera images kept.

    Raises:
        FileNotFoundError: a list of its edition, or an annotation, is not there.
        ValueError: an annotation holds anything but integers `[Q, 2]`.
    """
    reader = open_reader(ORIGIN, root, on_bad_image=on_bad_image, verify=verify)
    edition = "2021" if (reader.root / "query_label.xml").exists() else "2020"
    sides = {
        "train": _train(reader),
        "query": _test(reader, "query", edition, query_labels),
        "gallery": _test(reader, "test", edition, gallery_labels),
    }
    protocol = Protocol("CityFlow-ReID", top=100)
    return reader.finish(sides, protocol, published=PUBLISHED[edition])


def _train(reader: Reader) -> list[Listed]:
    path = reader.root / "train_label.xml"
    tracks = _tracks(reader, "train")
    labelled: dict[str, Listed] = {}
    for line, attributes in read_items(path, reader.problems):
        name = attributes.get("imageName", "")
        if not name:
            reader.problems.add("item without imageName", path, line=line)
        if name in labelled:
            reader.problems.add("image labelled twice", path, line=line, value=name)
        identity = attributes.get("vehicleID", "")
        camera = attributes.get("cameraID", "").removeprefix("c")
        labelled[name] = Listed(
            f"image_train/{name}",
            reader.number(identity, "vehicleID", path, line),
            reader.number(camera, "cameraID", path, line),
            tracks.get(name, UNKNOWN),
            path.name,
            line,
        )
    _check_track_names(reader, "train", tracks, set(labelled))
    _check_unlabelled(reader, set(labelled))
    return [labelled[name] for name in sorted(labelled)]


def _check_unlabelled(reader: Reader, labelled: set[str]) -> None:
    listing = reader.root / "name_train.txt"
    lines: dict[str, int] = {}
    if listing.exists():
        lines = {fields[0]: number for number, fields in read_lines(listing)}
    present = {p.name for p in (reader.root / "image_train").glob("*.jpg")}
    for name in sorted((present | set(lines)) - labelled):
        file = listing if name in lines else reader.root / "image_train"
        reader.leave_out("image without a label", file, name, lines.get(name))


def _check_track_names(
    reader: Reader, side: str, tracks: Tracks, names: set[str]
) -> None:
    strangers = sorted(set(tracks) - names)
    if strangers:
        reader.problems.add(
            f"{len(strangers)} images of the {side} tracks are in no list",
            reader.root,
            value=strangers[0],
        )


def _test(
    reader: Reader, side: str, edition: str, annotation: str | Path | None
) -> list[Listed]:
    folder = f"image_{side}"
    listing = reader.root / f"name_{side}.txt"
    labels = reader.root / f"{side}_label.xml"
    cameras: dict[str, str] = {}
    lines: dict[str, int] = {}
    if labels.exists():
        for line, attributes in read_items(labels, reader.problems):
            name = attributes.get("imageName", "")
            cameras[name] = attributes.get("cameraID", "").removeprefix("c")
            lines[name] = line
    if listing.exists():
        listed = [(fields[0], number) for number, fields in read_lines(listing)]
    elif cameras:
        listing, listed = labels, sorted(lines.items())
    else:
        raise FileNotFoundError(
            f"{listing}: missing; the editions of 2019 and 2020 have it, that of 2021 "
            f"has {labels.name} as well (this folder looks like {edition})"
        )
    known = _annotation(annotation, len(listed), f"name_{side}.txt")
    tracks = _tracks(reader, side) if side == "test" else {}
    _check_track_names(reader, side, tracks, {name for name, _ in listed})
    images = []
    for row, (name, line) in enumerate(listed):
        camera = UNKNOWN
        if name in cameras:
            camera = reader.number(cameras[name], "cameraID", labels, lines[name])
        camera = int(known[row, 0]) if known.size else camera
        identity = int(known[row, 1]) if known.size else UNKNOWN
        track = tracks.get(name, UNKNOWN)
        images.append(
            Listed(f"{folder}/{name}", identity, camera, track, listing.name, line)
        )
    return images


def _tracks(reader: Reader, side: str) -> Tracks:
    complete = reader.root / f"{side}_track_id.txt"
    names_only = reader.root / f"{side}_track.txt"
    if complete.exists():
        tracks = _read_tracks(reader, complete, digits=6)
        if names_only.exists():
            lacking = len(tracks) - len(_read_tracks(reader, names_only))
            if lacking:
                reader.notes.append(
                    f"{names_only.name} lacks {lacking:,} images; tracks are taken "
                    f"from {complete.name}"
                )
        return tracks
    if not names_only.exists():
        reader.notes.append(f"no tracks of {side}: no {complete.name} or _track.txt")
        return {}
    tracks = _read_tracks(reader, names_only)
    reader.notes.append(
        f"no {complete.name} (in the editions of 2019 and 2020): images that "
        f"{names_only.name} leaves out stand alone"
    )
    return tracks


def _read_tracks(reader: Reader, path: Path, digits: int = 0) -> Tracks:
    tracks: Tracks = {}
    # Blank lines count: the number of a line is the number of its track.
    for number, fields in read_lines(path, blank=True):
        for field in fields:
            name = f"{field.zfill(digits)}.jpg" if digits else field
            if name in tracks:
                kind = "image in two tracks"
                reader.problems.add(kind, path, line=number, value=field)
            tracks[name] = number - 1
    return tracks


def _annotation(path: str | Path | None, size: int, listing: str) -> np.ndarray:
    if path is None:
        return np.empty((0, 2), np.int64)
    path = check_file(path, "annotation")
    values = read_npy(path) if path.suffix == ".npy" else read_numbers(path)
    expected = (
        f"{path}: expected integers ({size}, 2), camera and identity for each line of "
        f"{listing}"
    )
    if values.shape != (size, 2) or values.dtype.kind not in "iuf":
        raise ValueError(f"{expected}, got {values.dtype} {values.shape}")
    # pandas makes floating-point numbers of a column with gaps, which are NaN.
    values = np.where(np.isnan(values), UNKNOWN, values)
    bad = np.flatnonzero(~((values >= UNKNOWN) & (values < 2**53)).all(axis=1))
    if not bad.size:
        bad = np.flatnonzero((values != np.floor(values)).any(axis=1))
    if bad.size:
        row = int(bad[0])
        raise ValueError(f"{expected}, got {values[row].tolist()} in row {row}")
    return values.astype(np.int64)
