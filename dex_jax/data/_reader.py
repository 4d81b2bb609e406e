"""One data set being read: its images with labels, its problems, its notes."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dex_jax.data._contents import read_contents
from dex_jax.data._images import ImageFiles, file_sizes, find_faults, fingerprint
from dex_jax.data._label_files import Line, read_lines, whole_number
from dex_jax.data._problems import Problems, check_reading, leaves_folder
from dex_jax.data._records import (
    UNKNOWN,
    Protocol,
    ReidData,
    ReidSplit,
)

SIDES = ("train", "query", "gallery")
# Of larger numbers a list would be mostly gaps.
_MOST_WORDS = 10_000_000


class Listed(NamedTuple):
    """One image as a label file lists it."""

    name: str  # the path below the root, with "/"
    identity: int = UNKNOWN
    camera: int = UNKNOWN
    tracklet: int = UNKNOWN
    file: str = ""  # where it is listed, for messages
    line: int | None = None


class Origin(NamedTuple):
    """A data set as its authors publish it."""

    name: str  # in the catalogue
    title: str  # what its authors call it, for messages
    marks: tuple[str, ...]  # files or folders that all lie in its folder
    below: tuple[str, ...]  # what its folder may be called inside another one
    obtain: str  # a sentence on how it is obtained
    pictures: tuple[str, ...] = ()  # further ones, not needed for the labels


class Reader:
    """Collects what a loader reads and makes one checked data set of it.

    Args:
        name: the data set.
        root: its folder; every image lies below.
        on_bad_image: see `dex_jax.data.load`.
        verify: see there.

    Raises:
        ValueError: one of these two has another value.
    """

    def __init__(self, name: str, root: Path, *, on_bad_image: str, verify: bool):
        check_reading(on_bad_image, verify)
        self.name = name
        self.root = root
        self.problems = Problems(f"{name} in {root}")
        self.notes: list[str] = []
        self._skip = on_bad_image == "skip"
        self._verify = verify or self._skip
        self._labels_alone = on_bad_image == "later"
        self._left_out = 0

    def finish(
        self,
        sides: dict[str, list[Listed]],
        protocol: Protocol,
        *,
        published: dict[str, int],
        domain: str = "real",
        restarts: bool = False,
    ) -> ReidData:
        """Judges everything at once and builds the data set.

        Args:
            sides: the images of "train", "query" and "gallery" in their order; a side
                may be left out.
            protocol: how the set is scored.
            published: counts such as `{"train images": 36935}`; what differs is noted.
            domain: the domain of all images.
            restarts: train and test number their identities each from the beginning;
                those of test are moved behind those of train.

        Raises:
            ValueError: everything that is wrong, the first 20 with file and line.
        """
        unknown = set(sides) - set(SIDES)
        if unknown:
            raise ValueError(f"sides: expected {SIDES}, got {sorted(unknown)}")
        sides, words = _keep_apart(sides) if restarts else (sides, ())
        content: list[bytes] = []
        splits: dict[str, ReidSplit] = {}
        kept: dict[str, list[Listed]] = {}
        for side in SIDES:
            images = self._without_repeats(sides.get(side, []))
            kept[side] = self._check_images(images)
            _check_tracklets(kept[side], self.problems)
        self.problems.check()
        if not any(kept.values()):
            said = "".join(f"; {note}" for note in self.notes)
            raise ValueError(f"{self.name} in {self.root}: holds no image{said}")
        if kept["query"] and not kept["gallery"]:
            raise ValueError(
                f"{self.name} in {self.root}: holds {len(kept['query'])} queries and "
                "no gallery image"
            )
        for side, images in kept.items():
            splits[side] = _split(self.root, images, domain)
            content.append(repr([tuple(i[:4]) for i in images]).encode())
            if not self._labels_alone:
                content.append(read_contents(_files(self.root, images)))
        if self._left_out:
            self.notes.append(
                f"{self._left_out} image(s) are left out: absent, without a label or "
                "not to be decoded"
            )
        self._compare(splits, published)
        return ReidData(
            name=self.name,
            train=splits["train"],
            query=splits["query"],
            gallery=splits["gallery"],
            protocol=protocol,
            source=f"{self.name}-{fingerprint(*content)}",
            identity_names=words,
            notes=tuple(self.notes),
        )

    def leave_out(self, kind: str, file: Path, value: str, line: int | None = None):
        """Notes an image that cannot be used: a problem, or one image left out."""
        if self._skip:
            self._left_out += 1
        else:
            self.problems.add(kind, file, line=line, value=value)

    def read_list(
        self,
        path: Path,
        parse: Callable[[Line], Listed | None],
        *,
        expected: str,
        kind: str = "wrong field count",
    ) -> list[Listed]:
        """Reads a list with one image a line.

        Args:
            path: the list.
            parse: what a line says; None where it does not say it as expected.
            expected: the form of a line.
            kind: what a line of another form is called.

        Raises:
            FileNotFoundError: no such list.
        """
        images = []
        for line in read_lines(path):
            image = parse(line)
            if image is None:
                value = " ".join(line.fields)
                self.problems.add(
                    kind, path, line=line.number, value=value, expected=expected
                )
            else:
                images.append(image._replace(file=path.name, line=line.number))
        return images

    def number(self, text: str, kind: str, file: Path, line: int) -> int:
        """Reads a label that must be a whole number; anything else is a problem."""
        value = whole_number(text)
        if value is None:
            self.problems.add(f"{kind} is not a number", file, line=line, value=text)
            return UNKNOWN
        return value

    def _without_repeats(self, images: list[Listed]) -> list[Listed]:
        first: dict[str, Listed] = {}
        for image in images:
            if not _is_utf8(image.name):
                kind = "name is not UTF-8"
                self.problems.add(kind, self.root, value=image.name)
            if leaves_folder(image.name):
                kind = "image outside of the data set's folder"
                self.problems.add(kind, image.file, line=image.line, value=image.name)
            other = first.setdefault(image.name, image)
            if other is not image:
                self.problems.add(
                    "image listed twice",
                    image.file,
                    line=image.line,
                    value=image.name,
                    expected=f"once, as in line {other.line}",
                )
        return list(first.values())

    def _check_images(self, images: list[Listed]) -> list[Listed]:
        if self._labels_alone:
            return images
        files = _files(self.root, images)
        faults = find_faults(files, file_sizes(files), decode_all=self._verify)
        if self._skip:
            self._left_out += len(faults)
            return [image for i, image in enumerate(images) if i not in faults]
        for i, fault in faults.items():
            image = images[i]
            self.problems.add(fault, image.file, line=image.line, value=image.name)
        return images

    def _compare(self, splits: dict[str, ReidSplit], published: dict[str, int]) -> None:
        found = {k: v for s in splits for k, v in count(s, splits[s]).items()}
        differing = [
            f"{key} {found[key]:,} instead of {value:,}"
            for key, value in published.items()
            if found[key] != value
        ]
        if differing:
            self.notes.append(f"differs from the published set: {', '.join(differing)}")


def count(side: str, split: ReidSplit) -> dict[str, int]:
    """Counts the images, identities, cameras and tracklets of one side."""
    found = {f"{side} images": len(split)}
    for kind in ("identities", "cameras", "tracklets"):
        labels = getattr(split, kind)
        found[f"{side} {kind}"] = np.unique(labels[labels != UNKNOWN]).size
    return found


def open_reader(
    origin: Origin, root: str | Path, *, on_bad_image: str, verify: bool
) -> Reader:
    """Finds the folder of a data set and opens a reader of it.

    Args:
        origin: of the data set.
        root: what the user gave: the folder, or one that holds it.
        on_bad_image: see `dex_jax.data.load`.
        verify: see there.

    Raises:
        FileNotFoundError: the set is not there; says how to obtain it.
        ValueError: `on_bad_image` or `verify` has another value.
    """
    root = Path(root)
    needed = () if on_bad_image == "later" else origin.pictures
    marks = origin.marks + needed
    for folder in (root, *(root / below for below in origin.below)):
        if all((folder / mark).exists() for mark in marks):
            return Reader(origin.name, folder, on_bad_image=on_bad_image, verify=verify)
    raise missing(origin.title, root, ", ".join(marks), origin.obtain)


def missing(title: str, root: Path, marks: str, obtain: str) -> FileNotFoundError:
    """The error for a data set that is not at `root`: how to obtain it, what else."""
    return FileNotFoundError(
        f"{root}: {title} is not here, expected a folder that holds {marks}. {obtain} "
        "Without it: 'procedural_vehicles' is drawn by the package itself."
    )


def _keep_apart(
    sides: dict[str, list[Listed]],
) -> tuple[dict[str, list[Listed]], tuple[str, ...]]:
    """Moves the identities of test behind those of train.

    Returns:
        The sides, and the number that each identity has in the source.
    """
    top = {
        side: max((image.identity for image in images), default=0)
        for side, images in sides.items()
    }
    behind = 1 + top["train"]
    moved = {
        side: images
        if side == "train"
        else [i._replace(identity=i.identity + behind) for i in images]
        for side, images in sides.items()
    }
    test = 1 + max(top["query"], top["gallery"])
    if behind + test > _MOST_WORDS:
        return moved, ()
    return moved, tuple(
        str(number) for count in (behind, test) for number in range(count)
    )


def _is_utf8(name: str) -> bool:
    """Whether a name can be written to files; that of any file on disk may not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _files(root: Path, images: list[Listed]) -> ImageFiles:
    return ImageFiles(root, [image.name for image in images])


def _split(root: Path, images: list[Listed], domain: str) -> ReidSplit:
    files = _files(root, images)
    return ReidSplit(
        files,
        files.names,
        np.array([image.identity for image in images], np.int64),
        np.array([image.camera for image in images], np.int64),
        np.array([image.tracklet for image in images], np.int64),
        np.full(len(images), domain),
    )


def _check_tracklets(images: list[Listed], problems: Problems) -> None:
    first: dict[int, Listed] = {}
    for image in images:
        if image.tracklet == UNKNOWN:
            continue
        other = first.setdefault(image.tracklet, image)
        if (image.identity, image.camera) != (other.identity, other.camera):
            problems.add(
                f"track {image.tracklet} mixes vehicles",
                image.file,
                line=image.line,
                value=f"{image.name}: identity {image.identity}, camera {image.camera}",
                expected=f"identity {other.identity}, camera {other.camera} as in "
                f"{other.name}",
            )
