"""What a data set holds: counts, distributions and the camera graph."""

from typing import NamedTuple

import numpy as np

from dex_jax.data._records import UNKNOWN, ReidData, ReidSplit


class SplitStatistics(NamedTuple):
    """The statistics of one split; junk and unknown labels are left out.

    Attributes:
        images: number of images.
        images_per_identity: int64 `[C]`, by sorted identity.
        cameras_per_identity: int64 `[C]`.
        tracklet_lengths: int64 `[T]`, images of each tracklet.
        cameras: int64 `[M]`, the cameras in ascending order.
        shared_identities: int64 `[M, M]`, identities that both cameras see; the
            diagonal counts those of one camera.
        unlabelled: images without identity.
    """

    images: int
    images_per_identity: np.ndarray
    cameras_per_identity: np.ndarray
    tracklet_lengths: np.ndarray
    cameras: np.ndarray
    shared_identities: np.ndarray
    unlabelled: int


def statistics(split: ReidSplit) -> SplitStatistics:
    """Counts what a split holds.

    Example:
        >>> split = ReidSplit(np.zeros((3, 2, 2, 3), np.uint8), tuple("abc"),
        ...                   np.array([4, 4, 9]), np.array([1, 2, 2]))
        >>> statistics(split).shared_identities.tolist()
        [[1, 1], [1, 2]]
    """
    known = split.identities != UNKNOWN
    identities, who = np.unique(split.identities[known], return_inverse=True)
    cameras = np.unique(split.cameras[split.cameras != UNKNOWN])
    seen = np.zeros((identities.size, cameras.size), np.int64)  # [C, M]
    where = np.searchsorted(cameras, split.cameras[known])
    placed = split.cameras[known] != UNKNOWN
    seen[who.reshape(-1)[placed], where[placed]] = 1
    tracklets = split.tracklets[split.tracklets != UNKNOWN]
    return SplitStatistics(
        images=len(split),
        images_per_identity=np.bincount(who.reshape(-1), minlength=identities.size),
        cameras_per_identity=seen.sum(axis=1),
        tracklet_lengths=np.unique(tracklets, return_counts=True)[1],
        cameras=cameras,
        shared_identities=seen.T @ seen,
        unlabelled=int(np.sum(~known)),
    )


def describe(data: ReidData) -> str:
    """Writes the statistics of a data set as a table for the screen.

    Args:
        data: any data set.

    Returns:
        Lines of plain text: protocol, notes, counts by split, the camera graph.
    """
    splits = {side: getattr(data, side) for side in ("train", "query", "gallery")}
    found = {side: statistics(split) for side, split in splits.items() if len(split)}
    rows = [["", *found]]
    rows.append(["images", *(f"{s.images:,}" for s in found.values())])
    rows.append(["unlabelled", *(f"{s.unlabelled:,}" for s in found.values())])
    for title, field in (
        ("identities", "images_per_identity"),
        ("cameras", "cameras"),
        ("tracklets", "tracklet_lengths"),
    ):
        rows.append([title, *(f"{getattr(s, field).size:,}" for s in found.values())])
    for title, field in (
        ("images per identity", "images_per_identity"),
        ("cameras per identity", "cameras_per_identity"),
        ("images per tracklet", "tracklet_lengths"),
    ):
        rows.append([title, *(_spread(getattr(s, field)) for s in found.values())])
    domains = {
        str(domain): int(number)
        for domain, number in zip(
            *np.unique(data.train.domains, return_counts=True), strict=True
        )
    }
    lines = [f"{data.name} ({data.source})", data.protocol.describe()]
    lines += [f"note: {note}" for note in data.notes]
    if len(domains) > 1:
        mixed = ", ".join(f"{number:,} {domain}" for domain, number in domains.items())
        lines.append(f"training images: {mixed}")
    lines += ["", *_table(rows)]
    for side, split in found.items():
        lines += _camera_graph(side, split, data.camera_names)
    return "\n".join(lines)


def _spread(values: np.ndarray) -> str:
    if not values.size:
        return "-"
    return f"{values.min()} / {np.median(values):g} / {values.max()}"


def _camera_graph(
    side: str, found: SplitStatistics, names: tuple[str, ...]
) -> list[str]:
    if found.cameras.size < 2:
        return []
    words = [names[c] if names else str(c) for c in found.cameras]
    title = f"{side}: identities that two cameras share"
    rows = [["", *words]]
    for i, word in enumerate(words):
        shared = found.shared_identities[i]
        rows.append([word, *(str(n) if n else "." for n in shared)])
    return ["", title, *_table(rows)]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
