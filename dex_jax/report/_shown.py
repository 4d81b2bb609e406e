"""The first images of every list, as a person is shown them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Result, counted_pairs

WRONG, RIGHT, JUNK, UNKNOWN = "0123"
# Junk images that are shown among the first ten; more would push the ranks out.
_JUNK_SHOWN = 3


class Shown(NamedTuple):
    """One query's list under one chain.

    Attributes:
        ids: gallery rows, best first: ten that count and a few that do not.
        kinds: a letter for each: wrong, right, junk, or unknown without labels.
        first_hit: rank of the first right image, 0 where the first 100 have none.
    """

    ids: list[int]
    kinds: str
    first_hit: int


def shown_lists(
    result: Result, file: EmbeddingFile, protocol: Protocol, *, length: int = 10
) -> list[Shown]:
    """Picks what is shown of each query's list.

    Args:
        result: a chain's ranks.
        file: the labels.
        protocol: which images count.
        length: images that count, per list.

    Returns:
        One entry a query.
    """
    if file.query_identities is None:
        first = [ids[:length].tolist() for ids in result.ids]
        return [Shown(ids, UNKNOWN * len(ids), 0) for ids in first]
    lists = []
    for start in range(0, len(result.ids), 64):
        rows = slice(start, start + 64)
        counted, positive = counted_pairs(file, protocol, rows)
        for query, ids in enumerate(result.ids[rows]):
            counts, hits = counted[query, ids], positive[query, ids]
            rank, junk = np.cumsum(counts), np.cumsum(~counts)
            first = int(rank[hits.argmax()]) if hits.any() else 0
            keep = (rank <= length) & (counts | (junk <= _JUNK_SHOWN))
            kinds = np.where(hits, RIGHT, np.where(counts, WRONG, JUNK))[keep]
            lists.append(Shown(ids[keep].tolist(), "".join(kinds), first))
    return lists


def positives(file: EmbeddingFile, protocol: Protocol) -> list[int]:
    """Counts the gallery images, or tracklets, that each query should find."""
    if file.query_identities is None:
        return [0] * len(file.query_names)
    tracklets = file.gallery_tracklet_ids()
    counts = []
    for start in range(0, len(file.query_names), 64):
        for found in counted_pairs(file, protocol, slice(start, start + 64))[1]:
            units = tracklets[found]
            by_unit = protocol.gallery_unit == "tracklet"
            counts.append(len(np.unique(units)) if by_unit else len(units))
    return counts


def picture_of(
    images: Mapping[str, Images] | None, side: str, row: int
) -> np.ndarray | None:
    """Decodes an image `[H, W, 3]`; None where there is none or it is damaged.

    By now the figures are known: a damaged image shall not cost the report.
    """
    if images is None:
        return None
    try:
        return images[side][row]
    except (OSError, ValueError):
        return None
