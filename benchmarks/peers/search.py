"""Exact nearest neighbours: faiss, and matrix products in blocks with numpy."""

import importlib

import numpy as np


def faiss_search(
    queries: np.ndarray, database: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and ids of the `k` nearest, rows of unit length."""
    faiss = importlib.import_module("faiss")
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database)
    return index.search(queries, k)


def numpy_search(
    queries: np.ndarray, database: np.ndarray, k: int, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    cosines, ids = [], []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ database.T
        near = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        value = np.take_along_axis(scores, near, axis=1)
        order = np.argsort(-value, axis=1, kind="stable")
        ids.append(np.take_along_axis(near, order, axis=1))
        cosines.append(np.take_along_axis(value, order, axis=1))
    return np.concatenate(cosines), np.concatenate(ids)
