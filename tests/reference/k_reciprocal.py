"""k-reciprocal re-ranking by sets and dense rows, straight from the equations."""

import numpy as np


def neighbour_lists(cosine: np.ndarray, length: int) -> list[list[int]]:
    """Rows sorted by falling cosine, equal ones by index; the point itself counted."""
    lists = []
    for row in cosine:
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        lists.append(order[:length])
    return lists


def reciprocal_set(lists: list[list[int]], i: int, k: int) -> set[int]:
    return {j for j in lists[i][: k + 1] if i in lists[j][: k + 1]}


def expanded_set(lists: list[list[int]], i: int, k1: int) -> set[int]:
    own = reciprocal_set(lists, i, k1)
    half = int(np.around(k1 / 2))
    united = set(own)
    for c in own:
        near = reciprocal_set(lists, c, half)
        if 3 * len(near & own) > 2 * len(near):
            united |= near
    return united


def final_distance(
    cosine: np.ndarray, queries: int, *, k1: int, k2: int, lambda_: float
) -> np.ndarray:
    """Distances `[Q, G]` from the cosines `[N, N]` of queries followed by gallery."""
    cosine = np.asarray(cosine, np.float64)
    size = len(cosine)
    lists = neighbour_lists(cosine, size)
    largest = (1 - cosine).max(axis=1, keepdims=True)
    original = (1 - cosine) / np.where(largest == 0, 1, largest)

    encoding = np.zeros((size, size))
    for i in range(size):
        members = sorted(expanded_set(lists, i, k1))
        if members:
            weights = np.exp(-original[i, members])
            encoding[i, members] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[row[:k2]].mean(axis=0) for row in lists])

    jaccard = np.zeros((queries, size - queries))
    for q in range(queries):
        for g in range(size - queries):
            shared = np.minimum(encoding[q], encoding[queries + g]).sum()
            jaccard[q, g] = 1 - shared / (2 - shared)
    return (1 - lambda_) * jaccard + lambda_ * original[:queries, queries:]
