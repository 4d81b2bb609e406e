"""Diffusion by power iteration on a scipy CSR graph with faiss lists."""

import importlib

import numpy as np

from peers.search import faiss_search


def csr_diffusion(
    query: np.ndarray,
    gallery: np.ndarray,
    k: int = 50,
    k_query: int = 25,
    alpha: float = 0.95,
    steps: int = 25,
) -> np.ndarray:
    sparse = importlib.import_module("scipy.sparse")
    size = len(gallery)
    cosines, ids = faiss_search(gallery, gallery, k)
    rows = np.repeat(np.arange(size), k)
    values = np.maximum(cosines.ravel(), 0) ** 3
    graph = sparse.csr_matrix((values, (rows, ids.ravel())), shape=(size, size))
    graph.setdiag(0)
    graph = graph.minimum(graph.T)  # zero where one side lacks the other
    degree = np.asarray(graph.sum(axis=1)).ravel()
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    graph = (sparse.diags(scale) @ graph @ sparse.diags(scale)).tocsr()
    graph = graph.astype(np.float32)
    cosines, ids = faiss_search(query, gallery, k_query)
    start = np.zeros((size, len(query)), np.float32)
    start[ids, np.arange(len(query))[:, None]] = np.maximum(cosines, 0) ** 3
    found = start
    for _ in range(steps):
        found = alpha * (graph @ found) + (1 - alpha) * start
    return found.T
