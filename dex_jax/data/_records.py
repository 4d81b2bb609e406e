"""The records that all parts exchange: images with identities, cameras, tracklets."""

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dex_jax._checks import check_choice, check_count

UNKNOWN = -1
# Each draw is a ranking of all queries; papers take ten.
MOST_DRAWS = 1_000


class Images(typing.Protocol):
    """N images: a list, an array or anything that decodes one when it is asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class ImageSubset:
    """Some images of another sequence, decoded only when they are asked for."""

    def __init__(self, images: Images, indices: np.ndarray):
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[int(self._indices[index])]


class ImageConcatenation:
    """Several image sequences, one after the other."""

    def __init__(self, parts: Sequence[Images]):
        self._parts = tuple(parts)
        self._starts = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part][index - int(self._starts[part])]


@dataclass(frozen=True, eq=False)
class ReidSplit:
    """The images of one side (train, query or gallery) and what is known of them.

    Labels are opaque numbers: only their equality counts. A split may be empty; the
    sampler and the extraction refuse an empty one.

    Attributes:
        images: N images, `images[i]` decodes a uint8 `[H, W, 3]` array.
        names: N distinct names; the row order of embeddings and submissions.
        identities: int64 `[N]`; -1 is junk or unlabelled.
        cameras: int64 `[N]`; -1 is unknown.
        tracklets: int64 `[N]`; -1 is none: the image stands alone.
        domains: `[N]` words such as "real" or "sim"; left out, all are "real".

    Raises:
        ValueError: lengths differ, a name occurs twice, a label is not an integer or
            is below -1, a tracklet mixes identities or cameras.

    Example:
        >>> import numpy as np
        >>> pixels = np.zeros((3, 8, 8, 3), np.uint8)
        >>> split = ReidSplit(pixels, ("a", "b", "c"), np.array([4, 4, 7]))
        >>> split.take([2, 0]).identities.tolist()
        [7, 4]
    """

    images: Images
    names: tuple[str, ...]
    identities: np.ndarray
    cameras: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    tracklets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    domains: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))

    def __post_init__(self):
        names = tuple(self.names)
        object.__setattr__(self, "names", names)
        if len(self.images) != len(names):
            raise ValueError(f"names: got {len(names)} for {len(self.images)} images")
        for label in ("identities", "cameras", "tracklets"):
            values = np.asarray(getattr(self, label))
            if label != "identities" and values.size == 0:
                values = np.full(len(names), UNKNOWN, np.int64)
            object.__setattr__(self, label, _labels(values, label, len(names)))
        domains = np.asarray(self.domains)
        if domains.size == 0:
            domains = np.full(len(names), "real")
        if domains.shape != (len(names),) or domains.dtype.kind != "U":
            raise ValueError(
                f"domains: expected {len(names)} words, got shape {domains.shape} "
                f"of dtype {domains.dtype}"
            )
        object.__setattr__(self, "domains", domains)
        if len(set(names)) != len(names):
            raise ValueError(f"names: {_first_repeated(names)!r} occurs twice")
        _check_tracklets(self.tracklets, self.identities, "identities", names)
        _check_tracklets(self.tracklets, self.cameras, "cameras", names)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ReidSplit":
        """Returns the images `indices` in that order; nothing is decoded.

        Args:
            indices: distinct positions `[M]` in `[0, N)`, or a boolean mask `[N]`.

        Raises:
            ValueError: a position outside the split, or given twice.
        """
        at = np.asarray(indices)
        if at.dtype == np.bool_:
            if at.shape != (len(self),):
                raise ValueError(f"indices: mask {at.shape} for {len(self)} images")
            at = np.flatnonzero(at)
        at = at.astype(np.int64) if at.size == 0 else at
        if at.ndim != 1 or at.dtype.kind not in "iu":
            raise ValueError(
                f"indices: expected integers [M], got {at.dtype}{at.shape}"
            )
        if at.size and not (at.min() >= 0 and at.max() < len(self)):
            raise ValueError(
                f"indices: outside [0, {len(self)}): {at.min()}, {at.max()}"
            )
        return ReidSplit(
            ImageSubset(self.images, at),
            tuple(self.names[i] for i in at),
            self.identities[at],
            self.cameras[at],
            self.tracklets[at],
            self.domains[at],
        )


@dataclass(frozen=True)
class Protocol:
    """How a data set is scored; printed with every result.

    Attributes:
        name: what the protocol is called, such as "CityFlow-ReID".
        remove_same_camera: whether gallery images with the identity and the camera of
            the query are left out of its ranking.
        top: the ranking is cut after so many images; None keeps all.
        ap_denominator: average precision is divided by all "positives", or by
            "min" of the positives and `top`.
        draws: the published figure is the mean over so many random galleries, at most
            1,000, each with one image of each identity.
        gallery_unit: what is ranked, "image" or "tracklet".
        draw_seed: of the random galleries.
        leave_one_out: whether the gallery image of a query's own name is left out of
            its ranking, where both sides hold the same pictures.
    """

    name: str
    remove_same_camera: bool = False
    top: int | None = None
    ap_denominator: str = "positives"
    draws: int = 1
    gallery_unit: str = "image"
    draw_seed: int = 0
    leave_one_out: bool = False

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise ValueError(f"name: expected a word, got {self.name!r}")
        for rule in ("remove_same_camera", "leave_one_out"):
            if not isinstance(getattr(self, rule), bool):
                raise ValueError(
                    f"{rule}: expected True or False, got {getattr(self, rule)!r}"
                )
        if self.top is not None:
            check_count(self.top, "top")
        check_count(self.draws, "draws", most=MOST_DRAWS)
        check_count(self.draw_seed, "draw_seed", least=0, most=2**63 - 1)
        check_choice(self.ap_denominator, "ap_denominator", ("positives", "min"))
        check_choice(self.gallery_unit, "gallery_unit", ("image", "tracklet"))
        if self.leave_one_out and self.gallery_unit == "tracklet":
            raise ValueError(
                "leave_one_out: leaves out an image, and gallery_unit ranks tracklets"
            )

    def describe(self) -> str:
        """Says the protocol in one line.

        Example:
            >>> Protocol("CityFlow-ReID", top=100).describe()
            'CityFlow-ReID: same-camera images kept, mAP@100 over all positives'
        """
        same = "removed" if self.remove_same_camera else "kept"
        over = (
            "all positives"
            if self.ap_denominator == "positives" or self.top is None
            else f"min(positives, {self.top})"
        )
        cut = "mAP" if self.top is None else f"mAP@{self.top}"
        parts = [f"same-camera images {same}", f"{cut} over {over}"]
        if self.leave_one_out:
            parts.insert(1, "each query's own image left out")
        if self.gallery_unit == "tracklet":
            parts.append("the gallery is ranked by tracklet")
        if self.draws > 1:
            parts.append(f"mean of {self.draws} random galleries")
        return f"{self.name}: {', '.join(parts)}"


@dataclass(frozen=True, eq=False)
class ReidData:
    """A data set: what is learned from, what is asked, what is searched.

    Identities and cameras share one numbering over the three splits.

    Attributes:
        name: the name in the catalogue.
        train: labelled images, possibly none.
        query: Q images, possibly none.
        gallery: G images, possibly none.
        protocol: how it is scored.
        source: a version or hash that identifies the content; caches are keyed by it.
            Of sets on disk it follows from the labels and the bytes of all images.
        identity_names: the word behind each identity number, where the source has
            words; empty where the number is the source's own.
        camera_names: the same for cameras.
        notes: what was repaired or left out on reading, one sentence each.
    """

    name: str
    train: ReidSplit
    query: ReidSplit
    gallery: ReidSplit
    protocol: Protocol
    source: str
    identity_names: tuple[str, ...] = ()
    camera_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> dict[str, list[str]]:
        """The source's own words, by label: `words["cameras"][3]` is camera 3.

        Holds "identities" and "cameras", each only where the labels are numbers that
        were given to words; else a number is the source's own. Labels of synthetic
        images that were added are beyond the end of a list.

        Example:
            >>> nothing = ReidSplit((), (), np.empty(0, np.int64))
            >>> data = ReidData("set", nothing, nothing, nothing, Protocol("set"),
            ...                 "v1", identity_names=("bus_0002", "plate 10"))
            >>> data.words
            {'identities': ['bus_0002', 'plate 10']}
        """
        names = {"identities": self.identity_names, "cameras": self.camera_names}
        return {kind: list(words) for kind, words in names.items() if words}

    def __post_init__(self):
        if not self.name or not self.source:
            raise ValueError(
                f"name and source: expected words, got {self.name!r}, {self.source!r}"
            )
        if len(self.query) and not len(self.gallery):
            raise ValueError(
                f"gallery: is empty while {len(self.query)} queries ask it"
            )


def concatenate(splits: Sequence[ReidSplit]) -> ReidSplit:
    """Puts splits that share one numbering of labels one after the other."""
    if not splits:
        raise ValueError("splits: expected at least one")
    return ReidSplit(
        ImageConcatenation([split.images for split in splits]),
        tuple(name for split in splits for name in split.names),
        np.concatenate([split.identities for split in splits]),
        np.concatenate([split.cameras for split in splits]),
        np.concatenate([split.tracklets for split in splits]),
        np.concatenate([split.domains for split in splits]),
    )


def _labels(values: np.ndarray, name: str, size: int) -> np.ndarray:
    if values.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {values.shape}")
    if size and values.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {values.dtype}")
    values = values.astype(np.int64)
    if size and values.min() < UNKNOWN:
        raise ValueError(f"{name}: expected -1 or more, got {values.min()}")
    return values


def _first_repeated(names: tuple[str, ...]) -> str:
    seen = set()
    return next(name for name in names if name in seen or seen.add(name))


def _check_tracklets(
    tracklets: np.ndarray, labels: np.ndarray, kind: str, names: tuple[str, ...]
) -> None:
    known = np.flatnonzero(tracklets != UNKNOWN)
    first = dict(
        zip(tracklets[known[::-1]].tolist(), known[::-1].tolist(), strict=True)
    )
    start = np.fromiter((first[t] for t in tracklets[known].tolist()), np.int64)
    mixed = np.flatnonzero(labels[start] != labels[known])
    if mixed.size:
        a, b = int(start[mixed[0]]), int(known[mixed[0]])
        raise ValueError(
            f"tracklets: tracklet {tracklets[a]} mixes {kind} {labels[a]} "
            f"({names[a]!r}) and {labels[b]} ({names[b]!r})"
        )
