"""Average precision and CMC by sorting each row of scores."""

import numpy as np

from peers.packages import fastreid_module


def argsort_map(
    scores: np.ndarray, query_identities: np.ndarray, gallery_identities: np.ndarray
) -> float:
    precisions = []
    for row, identity in zip(scores, query_identities, strict=True):
        hits = gallery_identities[np.argsort(-row, kind="stable")] == identity
        places = np.flatnonzero(hits)
        if places.size:
            precisions.append(np.mean(np.arange(1, places.size + 1) / (places + 1)))
    return float(np.mean(precisions))


def cython_map(
    scores: np.ndarray, query_identities: np.ndarray, gallery_identities: np.ndarray
) -> float:
    """The compiled evaluation of the `fastreid` package, cameras all different."""
    module = fastreid_module("rank_cylib/rank_cy.*.so")
    query_cameras = np.zeros(len(query_identities), np.int64)
    gallery_cameras = np.ones(len(gallery_identities), np.int64)
    _, ap, _ = module.evaluate_cy(
        -scores,
        query_identities,
        gallery_identities,
        query_cameras,
        gallery_cameras,
        50,
    )
    return float(np.mean(ap))
