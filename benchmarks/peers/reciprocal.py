"""k-reciprocal re-ranking with dense arrays of pool x pool."""

import numpy as np

from peers.packages import fastreid_module
from peers.search import faiss_search


def _mutual(lists: np.ndarray, i: int, k: int) -> np.ndarray:
    near = lists[i, : k + 1]
    return near[(lists[near, : k + 1] == i).any(axis=1)]


def _united(lists: np.ndarray, i: int, k1: int) -> np.ndarray:
    own = _mutual(lists, i, k1)
    parts = [own]
    half = int(np.around(k1 / 2))
    for other in own:
        near = _mutual(lists, other, half)
        if 3 * np.isin(near, own).sum() > 2 * len(near):
            parts.append(near)
    return np.unique(np.concatenate(parts))


def _jaccard(encoding: np.ndarray, rows: int) -> np.ndarray:
    """Distances of the first `rows` to all, through inverted lists."""
    holders = [np.flatnonzero(column) for column in encoding.T]
    shared = np.zeros((rows, len(encoding)), np.float32)
    for i in range(rows):
        for t in np.flatnonzero(encoding[i]):
            who = holders[t]
            shared[i, who] += np.minimum(encoding[i, t], encoding[who, t])
    return 1 - shared / (2 - shared)


def dense_numpy(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_: float
) -> np.ndarray:
    """The published algorithm with full sorting, as most repositories run it."""
    pool = np.concatenate([query, gallery])
    squared = np.maximum(2 - 2 * (pool @ pool.T), 0)
    original = squared / squared.max(axis=1, keepdims=True)
    del squared
    lists = np.argsort(original, axis=1).astype(np.int32)
    encoding = np.zeros_like(original)
    for i in range(len(pool)):
        members = _united(lists, i, k1)
        weights = np.exp(-original[i, members])
        encoding[i, members] = weights / weights.sum()
    original = original[: len(query), len(query) :].copy()
    if k2 > 1:
        averaged = np.zeros_like(encoding)
        for i in range(len(pool)):
            averaged[i] = encoding[lists[i, :k2]].mean(axis=0)
        encoding = averaged
    jaccard = _jaccard(encoding, len(query))[:, len(query) :]
    return (1 - lambda_) * jaccard + lambda_ * original


def faiss_jaccard(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int
) -> np.ndarray:
    """The Jaccard distance of unsupervised re-identification: lists from faiss.

    Another definition in details: lists of k1, weights softmax(-d^2) unscaled, all
    pool x pool distances.
    """
    pool = np.concatenate([query, gallery])
    _, lists = faiss_search(pool, pool, k1)
    encoding = np.zeros((len(pool), len(pool)), np.float32)
    for i in range(len(pool)):
        members = _united(lists, i, k1)
        weights = np.exp(2 * (pool[members] @ pool[i]) - 2)
        encoding[i, members] = weights / weights.sum()
    if k2 > 1:
        averaged = np.zeros_like(encoding)
        for i in range(len(pool)):
            averaged[i] = encoding[lists[i, :k2]].mean(axis=0)
        encoding = averaged
    return np.maximum(_jaccard(encoding, len(pool)), 0)[: len(query), len(query) :]


def fastreid_package(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_: float
) -> np.ndarray:
    """The same algorithm as the `fastreid` package ships it."""
    module = fastreid_module("rerank.py")

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(2 - 2 * (a @ b.T), 0))

    return module.re_ranking(
        distances(query, gallery),
        distances(query, query),
        distances(gallery, gallery),
        k1=k1,
        k2=k2,
        lambda_value=lambda_,
    )
