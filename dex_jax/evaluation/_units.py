"""Ranking tracklets in place of images, where the protocol asks for it."""

from typing import NamedTuple

import numpy as np

from dex_jax.embeddings import separate_tracklets
from dex_jax.evaluation._labels import Labelled
from dex_jax.rerank import Ranking


class Units(NamedTuple):
    """A gallery of tracklets; each scores what its best image scores.

    Attributes:
        scores: `[Q, T]`, larger is better; tracklets in the order of their first image.
        images: int `[Q, T]`, the image of each tracklet that scores best.
        member: int `[T]`, an image of each tracklet, to read its labels from.
    """

    scores: np.ndarray
    images: np.ndarray
    member: np.ndarray


def by_tracklet(ranked: np.ndarray | Ranking, file: Labelled) -> Units:
    """Reduces scores `[Q, G]` to scores of tracklets (VeRi-776 image-to-track).

    Args:
        ranked: scores; a `Ranking` lacks most of them.
        file: the tracklets; an image without one is its own.

    Raises:
        ValueError: a `Ranking`.
    """
    if isinstance(ranked, Ranking):
        raise ValueError(
            "protocol: ranks tracklets, which needs the scores of all gallery images, "
            "not a list of the first"
        )
    tracklets = separate_tracklets(file.gallery_tracklets, len(file.gallery_names))
    _, first, of = np.unique(tracklets, return_index=True, return_inverse=True)
    order = np.argsort(first)
    scores = np.empty((len(ranked), len(first)), ranked.dtype)
    images = np.empty(scores.shape, np.int64)
    for place, tracklet in enumerate(order):
        members = np.flatnonzero(of == tracklet)
        block = ranked[:, members]
        best = block.argmax(axis=1)
        images[:, place] = members[best]
        scores[:, place] = block[np.arange(len(block)), best]
    return Units(scores, images, first[order])
