"""Average precision, CMC and mINP by walking down each sorted list."""

import numpy as np


def kept_list(
    scores: np.ndarray,
    identity: int,
    camera: int,
    identities: np.ndarray,
    cameras: np.ndarray,
) -> list[bool]:
    """Whether each image of the sorted list is a positive, removed images left out."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    hits = []
    for j in order:
        same = identity != -1 and identities[j] == identity
        if identities[j] == -1:
            continue
        if same and camera != -1 and cameras[j] == camera:
            continue
        hits.append(bool(same))
    return hits


def average_precision(
    hits: list[bool], *, top: int | None, smaller: bool, trapezoid: bool
) -> float:
    positives = sum(hits)
    if positives == 0:
        return float("nan")
    limit = len(hits) if top is None else top
    total, found = 0.0, 0
    for place, hit in enumerate(hits[:limit]):
        if hit:
            found += 1
            precision = found / (place + 1)
            before = 1.0 if place == 0 else (found - 1) / place
            total += (precision + before) / 2 if trapezoid else precision
    share = min(positives, limit) if smaller and top is not None else positives
    return total / share


def inverse_penalty(hits: list[bool], top: int | None) -> float:
    last = max(place for place, hit in enumerate(hits) if hit) + 1
    return 0.0 if top is not None and last > top else sum(hits) / last


def curve(hits: list[bool], top: int | None, length: int) -> np.ndarray:
    first = hits.index(True)
    missed = top is not None and first >= top
    return np.zeros(length) if missed else (np.arange(length) >= first).astype(float)
