"""Inputs that the tests of several steps share, so that little is compiled twice."""

import jax
import numpy as np

Q, G, D = 6, 40, 8


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, gallery and tracklet ids of loose clusters, cosines of both signs."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, D))
    track = rng.integers(0, 12, G)
    gallery = centres[track % 5] + 0.8 * rng.normal(size=(G, D))
    query = centres[np.arange(Q) % 5] + 0.8 * rng.normal(size=(Q, D))
    return query.astype(np.float32), gallery.astype(np.float32), 7 * track - 30


def signs(rows: int, seed: int = 0) -> np.ndarray:
    """Rows of +-1/2: unit length, every product exact, most of them equal."""
    rng = np.random.default_rng(seed)
    return rng.choice([-0.5, 0.5], size=(rows, 4)).astype(np.float32)


def temporary_bytes(lowered: jax.stages.Lowered) -> int:
    """What a program takes beside its inputs and outputs."""
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def unit_signs(seed: int, rows: int = 57, width: int = 16) -> np.ndarray:
    """Rows of +-1/4: unit length, every product exact, many of them equal."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1.0, 1.0], (6, width))
    flips = rng.random((rows, width)) < 0.2
    signs = centres[rng.integers(0, 6, rows)] * np.where(flips, -1, 1)
    return (signs / np.sqrt(width)).astype(np.float32)
