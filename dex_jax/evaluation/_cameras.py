"""How well each camera's queries are found in each other camera."""

from typing import NamedTuple

import numpy as np

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._labels import counted_pairs


class CameraMatrix(NamedTuple):
    """mAP by pair of cameras.

    Attributes:
        query_cameras: the A cameras that ask.
        gallery_cameras: the B cameras that are searched.
        mean_ap: `[A, B]`, the mAP when only that camera's images are searched; NaN
            where no query has a positive.
        queries: `[A, B]`, the queries behind each figure.
    """

    query_cameras: list[int]
    gallery_cameras: list[int]
    mean_ap: np.ndarray
    queries: np.ndarray


def camera_matrix(
    scores: np.ndarray, file: EmbeddingFile, protocol: Protocol
) -> CameraMatrix | None:
    """Splits mAP by the camera of the query and that of the gallery image.

    Args:
        scores: `[Q, G]`, larger is better.
        file: with identities.
        protocol: whether same-camera images are removed.

    Returns:
        The matrix; None where the file knows no cameras.
    """
    if file.query_cameras is None or file.gallery_cameras is None:
        return None
    query_cameras = np.unique(file.query_cameras[file.query_cameras != -1])
    gallery_cameras = np.unique(file.gallery_cameras[file.gallery_cameras != -1])
    if not query_cameras.size or not gallery_cameras.size:
        return None
    precision = np.full((len(scores), len(gallery_cameras)), np.nan)
    for start in range(0, len(scores), 64):
        rows = slice(start, start + 64)
        counted, positive = counted_pairs(file, protocol, rows)
        for query in range(len(counted)):
            # Cameras without a positive have no figure and cost nothing.
            for camera in np.unique(file.gallery_cameras[positive[query]]):
                there = counted[query] & (file.gallery_cameras == camera)
                images = np.flatnonzero(there)
                order = np.argsort(-scores[start + query, images], kind="stable")
                column = np.searchsorted(gallery_cameras, camera)
                if camera != -1:
                    precision[start + query, column] = _precision(
                        positive[query, images[order]]
                    )
    members = [file.query_cameras == camera for camera in query_cameras]
    known = np.isfinite(precision)
    queries = np.array([known[member].sum(axis=0) for member in members])
    sums = np.array([np.where(known, precision, 0)[m].sum(axis=0) for m in members])
    mean_ap = np.where(queries > 0, sums / np.maximum(queries, 1), np.nan)
    return CameraMatrix(
        query_cameras.tolist(), gallery_cameras.tolist(), mean_ap, queries
    )


def _precision(hits: np.ndarray) -> float:
    ranks = np.flatnonzero(hits) + 1
    return (
        float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if ranks.size else np.nan
    )
