"""Diffusion written from eq. 9-10: dense matrices, loops, float64."""

import numpy as np

from tests.reference.expansion import cosines, ranked, unit


def graph(gallery: np.ndarray, k: int, gamma: float) -> np.ndarray:
    """Eq. 9: `S [G, G]` of the mutual neighbours."""
    rows = unit(gallery)
    cosine = cosines(rows, rows)
    near = [set(ranked(row)[:k]) for row in cosine]
    G = len(rows)
    A = np.zeros((G, G))
    for i in range(G):
        for j in range(G):
            if i != j and j in near[i] and i in near[j]:
                A[i, j] = max(cosine[i, j], 0) ** gamma
    degree = A.sum(axis=1)
    scale = np.array([d**-0.5 if d > 0 else 0.0 for d in degree])
    return A * scale[:, None] * scale[None]


def start(query, gallery, k_query: int, gamma: float) -> np.ndarray:
    cosine = cosines(unit(query), unit(gallery))
    y = np.zeros_like(cosine)
    for row, values in zip(y, cosine, strict=True):
        ids = ranked(values)[:k_query]
        row[ids] = np.maximum(values[ids], 0) ** gamma
    return y


def power(links, y, alpha: float, iterations: int, initial: str) -> np.ndarray:
    """Eq. 10."""
    f = y if initial == "y" else np.zeros_like(y)
    for _ in range(iterations):
        f = alpha * f @ links.T + (1 - alpha) * y
    return f


def exact(links, y, alpha: float) -> np.ndarray:
    return (1 - alpha) * np.linalg.solve(np.eye(len(links)) - alpha * links, y.T).T
