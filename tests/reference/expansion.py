"""Query expansion, DEx and DBA written from the equations: loops, float64."""

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def ranked(scores: np.ndarray) -> list[int]:
    """Indices by falling score; equal scores by rising index."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Products of unit rows, rounded: rows that are equal tie, whatever the order in
    which a product is summed."""
    return np.round(rows @ others.T, 12)


def expand(
    row: np.ndarray, others: np.ndarray, ids: list[int], alpha: float
) -> np.ndarray:
    """Eq. 6 with the cosine clipped at 0."""
    total = row.copy()
    for i in ids:
        total += others[i] * max(row @ others[i], 0) ** alpha
    return unit(total)


def alpha_query_expansion(query, gallery, k: int, alpha: float) -> np.ndarray:
    query, gallery = unit(query), unit(gallery)
    near = [ranked(row)[:k] for row in cosines(query, gallery)]
    pairs = zip(query, near, strict=True)
    return np.stack([expand(q, gallery, ids, alpha) for q, ids in pairs])


def tracklet_order(q, gallery, tracklet_ids, within: str) -> list[int]:
    """Eq. 5: tracklets by the cosine of their mean, replaced by their images."""
    tracks = list(dict.fromkeys(tracklet_ids.tolist()))
    members = [np.flatnonzero(tracklet_ids == t).tolist() for t in tracks]
    means = unit(np.stack([gallery[m].mean(axis=0) for m in members]))
    order = []
    for t in ranked(cosines(q, means)):
        inside = [members[t][i] for i in ranked(cosines(q, gallery[members[t]]))]
        order += members[t] if within == "index" else inside
    return order


def tracklet_query_expansion(
    query, gallery, tracklet_ids, k: int, alpha: float, within: str = "index"
) -> np.ndarray:
    query, gallery = unit(query), unit(gallery)
    orders = [tracklet_order(q, gallery, tracklet_ids, within)[:k] for q in query]
    pairs = zip(query, orders, strict=True)
    return np.stack([expand(q, gallery, ids, alpha) for q, ids in pairs])


def database_augmentation(gallery, k: int, alpha: float, top_k: bool) -> np.ndarray:
    gallery = unit(gallery)
    rows = []
    for i, g in enumerate(gallery):
        near = ranked(cosines(g, gallery))
        if top_k:
            ids = near[:k]
            weights = [max(g @ gallery[j], 0) ** alpha for j in ids]
            rows.append(sum(w * gallery[j] for w, j in zip(weights, ids, strict=True)))
        else:
            rows.append(expand(g, gallery, [j for j in near if j != i][:k], alpha))
    return unit(np.stack(rows))
