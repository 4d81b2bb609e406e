"""Which gallery images count for a query under a protocol."""

from typing import Any

import numpy as np

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile


def protocol_labels(file: EmbeddingFile, protocol: Protocol) -> dict[str, Any]:
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
    return labels


def counted_pairs(
    file: EmbeddingFile, protocol: Protocol, query: slice | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tells which gallery images count for some queries, and which are positives.

    Args:
        file: with identities.
        protocol: whether same-camera images are removed.
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
    scores: np.ndarray, file: EmbeddingFile, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Splits scores `[Q, G]` into those of one vehicle and those of two."""
    genuine, impostor = [], []
    for start in range(0, len(scores), 64):
        block = slice(start, start + 64)
        counted, positive = counted_pairs(file, protocol, block)
        genuine.append(scores[block][positive])
        impostor.append(scores[block][counted & ~positive])
    return np.concatenate(genuine), np.concatenate(impostor)
