"""Which gallery images count for a query under a protocol."""

import typing
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from dex_jax.data import Protocol, ReidData
from dex_jax.embeddings import EmbeddingFile

Column = np.ndarray | None


class Labelled(typing.Protocol):
    """What is known of Q queries and G gallery images; an `EmbeddingFile` is one.

    Labels are int64 `[Q]` or `[G]`, -1 for none, or None where a kind is not known.
    """

    @property
    def query_names(self) -> tuple[str, ...]: ...
    @property
    def gallery_names(self) -> tuple[str, ...]: ...
    @property
    def query_identities(self) -> Column: ...
    @property
    def gallery_identities(self) -> Column: ...
    @property
    def query_cameras(self) -> Column: ...
    @property
    def gallery_cameras(self) -> Column: ...
    @property
    def gallery_tracklets(self) -> Column: ...


@dataclass(frozen=True, eq=False)
class Labels:
    """Names and labels without descriptors; the fields are those of `Labelled`."""

    query_names: tuple[str, ...]
    gallery_names: tuple[str, ...]
    query_identities: Column
    gallery_identities: Column
    query_cameras: Column
    gallery_cameras: Column
    gallery_tracklets: Column


def data_labels(data: ReidData) -> Labels:
    """Returns the names and labels of a data set; no picture is opened.

    Identities are None where no query has one, as in a challenge that keeps them back.
    """
    known = bool((data.query.identities != -1).any())
    return Labels(
        data.query.names,
        data.gallery.names,
        data.query.identities if known else None,
        data.gallery.identities if known else None,
        data.query.cameras,
        data.gallery.cameras,
        data.gallery.tracklets,
    )


def protocol_labels(file: Labelled, protocol: Protocol) -> dict[str, Any]:
    """Returns the labels that `dex_jax.metrics.evaluate` takes under a protocol.

    Raises:
        ValueError: no identities, or cameras that the protocol needs are missing.
    """
    if file.query_identities is None or file.gallery_identities is None:
        raise ValueError("identities: are needed to score; the embeddings have none")
    labels: dict[str, Any] = {
        "query_identities": file.query_identities,
        "gallery_identities": file.gallery_identities,
    }
    if protocol.remove_same_camera:
        if file.query_cameras is None or file.gallery_cameras is None:
            raise ValueError(
                f"cameras: the protocol {protocol.name!r} removes images of the "
                "query's camera, and the embeddings have no cameras"
            )
        labels["query_cameras"] = file.query_cameras
        labels["gallery_cameras"] = file.gallery_cameras
    if protocol.leave_one_out:
        labels |= _own_cameras(file, labels)
    return labels


def own_images(file: Labelled) -> np.ndarray:
    """The gallery row `[Q]` of each query's own name, -1 where there is none."""
    row = {name: row for row, name in enumerate(file.gallery_names)}
    return np.array([row.get(name, -1) for name in file.query_names], np.int64)


def _own_cameras(file: Labelled, labels: dict[str, Any]) -> dict[str, np.ndarray]:
    """Cameras by which the rule of the same camera removes own images, too.

    A query and its own image get a camera that nobody else has, unless the camera that
    they have in common removes the image anyway.
    """
    own = own_images(file)
    unknown = np.full(len(own), -1), np.full(len(file.gallery_names), -1)
    query = labels.get("query_cameras", unknown[0]).copy()
    gallery = labels.get("gallery_cameras", unknown[1]).copy()
    identities = labels["query_identities"], labels["gallery_identities"]
    for kind, pair in (("identity", identities), ("camera", (query, gallery))):
        other = np.flatnonzero((own >= 0) & (pair[0] != pair[1][own]))
        if other.size:
            at = other[0]
            words = _words(file, kind, (pair[0][at], pair[1][own[at]]))
            raise ValueError(
                f"leave_one_out: {file.query_names[at]!r} has the {kind} {words[0]} "
                f"as a query and {words[1]} in the gallery"
            )
    alone = np.flatnonzero((own >= 0) & (query == -1))
    number = max(query.max(initial=-1), gallery.max(initial=-1)) + 1
    query[alone] = gallery[own[alone]] = number + np.arange(len(alone))
    return {"query_cameras": query, "gallery_cameras": gallery}


def _words(file: Labelled, kind: str, codes: tuple[int, int]) -> list[str]:
    kinds = {"identity": "identities", "camera": "cameras"}
    if not isinstance(file, EmbeddingFile):
        return [str(code) for code in codes]
    return [label_word(file, kinds[kind], int(code)) for code in codes]


def check_scorable(file: Labelled, protocol: Protocol) -> None:
    """Refuses labels by which no query can be scored, and says what would help.

    Raises:
        ValueError: no identities, no identity on both sides, or no positive left by
            the protocol's rules.
    """
    labels = protocol_labels(file, protocol)
    if protocol.leave_one_out and (own_images(file) < 0).all():
        raise ValueError(
            "leave_one_out: no query has the name of a gallery image; it is for files "
            "in which both sides list the same pictures"
        )
    asked, there = labels["query_identities"], labels["gallery_identities"]
    images = Counter(there[there != -1].tolist())
    shared = [row for row, identity in enumerate(asked) if images[int(identity)]]
    if not shared:
        raise ValueError(
            "identities: no query can be scored: none of the queries' identities is in "
            "the gallery"
        )
    if "query_cameras" not in labels:
        return
    cameras = labels["query_cameras"]
    removed = Counter(
        zip(there.tolist(), labels["gallery_cameras"].tolist(), strict=True)
    )
    for row in shared:
        key = int(asked[row]), int(cameras[row])
        if key[1] == -1 or images[key[0]] > removed[key]:
            return
    helps = (
        "each vehicle is seen by one camera; --same_camera keep (in a config, "
        "config.data.remove_same_camera=False) counts images of the query's camera"
        if protocol.remove_same_camera
        else "each vehicle has one image, its own"
    )
    raise ValueError(
        f"identities: no query can be scored: the protocol {protocol.name!r} leaves no "
        f"positive, {helps}"
    )


def self_match_notes(file: EmbeddingFile, protocol: Protocol) -> list[str]:
    """Says how many queries find themselves in the gallery, which flatters figures."""
    if protocol.leave_one_out or file.query_identities is None:
        return []
    own = own_images(file)
    found = (own >= 0) & (file.query_identities != -1)
    how = "--leave_one_out leaves each query's own image out"
    if not found.any():
        own, found = _same_descriptors(file)
        how = "if they are the same pictures, name them alike and give --leave_one_out"
        what = "a gallery image of exactly their descriptor"
    else:
        what = "an image of their own name in the gallery"
    asked, there = file.query_cameras, file.gallery_cameras
    if protocol.remove_same_camera and asked is not None and there is not None:
        found &= (asked == -1) | (asked != there[own])
    count = int(found.sum())
    if not count:
        return []
    return [f"{count} of {len(own)} queries have {what} and find themselves; {how}"]


def _same_descriptors(file: EmbeddingFile) -> tuple[np.ndarray, np.ndarray]:
    """A gallery row `[Q]` of the same descriptor, and whether there is one."""
    row: dict[int, int] = {}
    for number, key in enumerate(_keys(file.gallery_features)):
        row.setdefault(key, number)
    own = np.array([row.get(key, -1) for key in _keys(file.query_features)], np.int64)
    equal = (file.query_features == file.gallery_features[own]).all(axis=1)
    known = np.zeros(len(own), bool)
    if file.query_identities is not None:
        known = file.query_identities != -1
    return own, (own >= 0) & equal & known


def _keys(features: np.ndarray) -> list[int]:
    """A number for each row, which different rows seldom share."""
    return [hash(row.tobytes()) for row in features]


def counted_pairs(
    file: Labelled, protocol: Protocol, query: slice | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tells which gallery images count for some queries, and which are positives.

    Args:
        file: with identities.
        protocol: which images are removed.
        query: which M queries.

    Returns:
        `(counted, positive)`, bool `[M, G]` each; a positive is always counted.
    """
    labels = protocol_labels(file, protocol)
    identity = labels["query_identities"][query, None]
    same = identity == labels["gallery_identities"][None]
    counted = (identity != -1) & (labels["gallery_identities"] != -1)[None]
    if "query_cameras" in labels:
        camera = labels["query_cameras"][query, None]
        near = (camera == labels["gallery_cameras"][None]) & (camera != -1)
        counted = counted & ~(same & near)
    return counted, same & counted


def pair_scores(
    scores: np.ndarray, file: Labelled, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Splits scores `[Q, G]` into those of one vehicle and those of two."""
    genuine, impostor = [], []
    for start in range(0, len(scores), 64):
        block = slice(start, start + 64)
        counted, positive = counted_pairs(file, protocol, block)
        genuine.append(scores[block][positive])
        impostor.append(scores[block][counted & ~positive])
    return np.concatenate(genuine), np.concatenate(impostor)


def label_word(file: EmbeddingFile, kind: str, code: int) -> str:
    """The user's own word for a label; its number where no word is known.

    Args:
        file: whose `meta["words"]` may hold lists of words, one for each number.
        kind: `"identities"` or `"cameras"`.
        code: the label.

    Example:
        >>> import numpy as np
        >>> words = {"cameras": ["gate", "bridge"]}
        >>> file = EmbeddingFile(
        ...     np.eye(1, 4), np.eye(1, 4), ("q",), ("g",), meta={"words": words}
        ... )
        >>> label_word(file, "cameras", 1), label_word(file, "identities", 1)
        ('bridge', '1')
    """
    words = file.meta.get("words")
    named = words.get(kind) if isinstance(words, dict) else None
    if isinstance(named, list | tuple) and 0 <= code < len(named):
        word = named[code]
        if isinstance(word, str) and word:
            return word
    return str(code)


def camera_tag(file: EmbeddingFile, code: int) -> str:
    """A camera in a few letters: its word, or "c" and the number it is called by."""
    word = label_word(file, "cameras", code)
    return f"c{word}" if word.isascii() and word.isdigit() else word
