"""Query expansion and database augmentation on faiss lists, and as packaged."""

import importlib
from typing import Any

import numpy as np

from peers.packages import fastreid_module
from peers.search import faiss_search


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def alpha_query_expansion(
    query: np.ndarray, gallery: np.ndarray, k: int = 20, alpha: float = 2.0
) -> np.ndarray:
    cosines, ids = faiss_search(query, gallery, k)
    weights = np.maximum(cosines, 0) ** alpha
    moved = query.copy()
    for slot in range(k):
        moved += weights[:, slot, None] * gallery[ids[:, slot]]
    return _unit(moved)


def fastreid_package(
    query: np.ndarray, gallery: np.ndarray, k: int = 20, alpha: float = 2.0
) -> np.ndarray:
    """The expansion of the `fastreid` package: of queries and gallery alike.

    Another definition: neighbours are taken from the whole pool, an image itself is
    the first of its `k`.
    """
    torch: Any = importlib.import_module("torch")
    module = fastreid_module("query_expansion.py")
    rows = torch.from_numpy(query), torch.from_numpy(gallery)
    moved, _ = module.aqe(*rows, qe_times=1, qe_k=k + 1, alpha=alpha)
    return _unit(moved.numpy())


def tracklet_query_expansion(
    query: np.ndarray,
    gallery: np.ndarray,
    tracklets: np.ndarray,
    k: int = 20,
    alpha: float = 2.0,
) -> np.ndarray:
    """Tracklets by the cosine of their mean; their images in gallery order."""
    labels, index = np.unique(tracklets, return_inverse=True)
    sums = np.zeros((len(labels), gallery.shape[1]), np.float32)
    np.add.at(sums, index, gallery)
    means = _unit(sums)
    ranked = np.argsort(-(query @ means.T), axis=1, kind="stable")
    members = [np.flatnonzero(index == t) for t in range(len(labels))]
    moved = np.empty_like(query)
    for q, order in enumerate(ranked):
        images: list[int] = []
        for t in order:
            images.extend(members[t])
            if len(images) >= k:
                break
        near = gallery[images[:k]]
        weights = np.maximum(near @ query[q], 0) ** alpha
        moved[q] = query[q] + weights @ near
    return _unit(moved)


def database_augmentation(gallery: np.ndarray, k: int = 10) -> np.ndarray:
    """Each image plus its k nearest others, unweighted."""
    _, ids = faiss_search(gallery, gallery, k + 1)
    moved = gallery.copy()
    for i, near in enumerate(ids):
        moved[i] += gallery[near[near != i][:k]].sum(axis=0)
    return _unit(moved)
