"""Synthetic embeddings with the shape of a vehicle re-identification test set."""

from typing import NamedTuple

import numpy as np

LATENT = 64


class Size(NamedTuple):
    queries: int
    gallery: int
    width: int
    identities: int
    tracklets: int


SIZES = {
    "quick": Size(200, 4_000, 512, 100, 240),
    "market": Size(3_368, 15_913, 2048, 750, 3_000),
    "half": Size(526, 9_145, 2048, 333, 798),
    "cityflow": Size(1_052, 18_290, 2048, 333, 798),
    "cityflow4352": Size(1_052, 18_290, 4352, 333, 798),
    "100k": Size(1_052, 100_000, 256, 1_800, 4_300),
    "veriwild": Size(10_000, 138_517, 256, 10_000, 25_000),
    "million": Size(1_052, 1_000_000, 256, 18_000, 43_000),
}


class Set(NamedTuple):
    query: np.ndarray
    gallery: np.ndarray
    query_identities: np.ndarray
    gallery_identities: np.ndarray
    tracklets: np.ndarray


def make(size: Size, seed: int = 0) -> Set:
    """Identity + tracklet + image noise in 64 dimensions, projected to `width`.

    Noise is set so that the plain ranking reaches an mAP of about 0.7.
    """
    rng = np.random.default_rng(seed)
    project = rng.normal(size=(LATENT, size.width)) / np.sqrt(LATENT)
    identity = rng.normal(size=(size.identities, LATENT))
    owners = np.arange(size.tracklets) % size.identities
    tracks = identity[owners] + 0.8 * rng.normal(size=(size.tracklets, LATENT))
    tracklets = rng.integers(0, size.tracklets, size.gallery)
    wanted = rng.integers(0, size.identities, size.queries)
    seen = identity[wanted] + 0.8 * rng.normal(size=(size.queries, LATENT))

    def images(latent: np.ndarray) -> np.ndarray:
        latent = latent + 0.73 * rng.normal(size=latent.shape)
        rows = (latent @ project).astype(np.float32)
        rows += 0.25 * rng.standard_normal(rows.shape, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return Set(
        images(seen), images(tracks[tracklets]), wanted, owners[tracklets], tracklets
    )
