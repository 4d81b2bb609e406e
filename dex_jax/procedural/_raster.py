"""A z-buffer over whole arrays: which triangle each pixel sees, and where."""

from typing import NamedTuple

import numpy as np


class Hits(NamedTuple):
    """The pixels that a mesh covers, in raster order."""

    pixel: np.ndarray
    """`[n]` int64 positions in the flattened image."""
    face: np.ndarray
    """`[n]` int64 face numbers."""
    values: np.ndarray
    """`[C, n]` float32 vertex values, perspective-correct."""


def _edges(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Edge functions a x + b y + c `[F, 3 edges, 3]`, positive inside."""
    x1, y1 = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    a, b = y - y1, x1 - x
    return np.stack([a, b, -(a * x + b * y)], axis=-1)


def _ranks(counts: np.ndarray) -> np.ndarray:
    """Numbers the members of consecutive runs from 0 on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


class _Spans(NamedTuple):
    """Rows of pixels that lie in one triangle."""

    face: np.ndarray
    row: np.ndarray
    left: np.ndarray
    width: np.ndarray


def _spans(edges: np.ndarray, y: np.ndarray, height: int, width: int) -> _Spans:
    """Cuts every triangle into spans."""
    top = np.clip(np.ceil(y.min(axis=1) - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.floor(y.max(axis=1) - 0.5), -1, height - 1).astype(np.int64)
    rows = np.maximum(bottom - top + 1, 0)
    face = np.repeat(np.arange(len(rows)), rows)
    row = np.repeat(top, rows) + _ranks(rows)
    low, high = np.zeros(len(row)), np.full(len(row), float(width))
    for a, b, c in edges.transpose(1, 2, 0):  # each [F]
        flat = np.abs(a) < 1e-9
        slope = np.where(flat, 0, -b / np.where(flat, 1, a))
        start = np.where(flat, 0, -c / np.where(flat, 1, a))
        cut = slope[face] * (row + 0.5) + start[face]
        rising = (a > 0)[face]
        low = np.where(rising, np.maximum(low, cut), low)
        high = np.where(rising | flat[face], high, np.minimum(high, cut))
    left = np.ceil(np.minimum(low, width) - 0.5).astype(np.int64)
    right = np.floor(np.maximum(high, -1) - 0.5).astype(np.int64)
    return _Spans(face, row, left, np.maximum(right - left + 1, 0))


def rasterize(
    screen: np.ndarray,
    depth: np.ndarray,
    values: np.ndarray,
    faces: np.ndarray,
    *,
    height: int,
    width: int,
) -> Hits:
    """Finds the nearest triangle of every pixel and interpolates vertex values there.

    Args:
        screen: `[V, 2]` pixel coordinates (x right, y down).
        depth: `[V]` distances along the view axis, positive.
        values: `[V, C]` what to interpolate.
        faces: `[F, 3]` vertex numbers; those seen from behind are left out.
        height: rows of the image.
        width: columns of the image.

    Returns:
        The covered pixels.
    """
    xy = screen[faces].astype(np.float64)
    x, y = xy[..., 0], xy[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (
        y[:, 1] - y[:, 0]
    )
    # Screen y points down, so an outside face runs the other way round.
    front = np.flatnonzero(area < -1e-6)
    x, y = x[front, ::-1], y[front, ::-1]
    corner = faces[front, ::-1]
    edges = _edges(x, y)
    inverse = 1.0 / depth
    # Weight i belongs to the corner opposite to edge i + 1.
    planes = np.roll(edges, -1, axis=1) / -area[front, None, None]
    near = planes * inverse[corner][..., None]  # [f, corner, 3]
    whole = near.sum(axis=1)  # 1 / depth is affine on the screen
    spans = _spans(edges, y, height, width)
    a, b, c = (k[spans.face] for k in whole.T)
    start = a * (spans.left + 0.5) + b * (spans.row + 0.5) + c
    step = _ranks(spans.width)
    closeness = np.repeat(start.astype(np.float32), spans.width)
    closeness += np.repeat(a.astype(np.float32), spans.width) * step.astype(np.float32)
    pixel = np.repeat(spans.row * width + spans.left, spans.width) + step
    # Positive floats sort like their bits; the place among the fragments makes every
    # key different: no ties, one order everywhere.
    key = closeness.view(np.int32).astype(np.int64) << 32
    key += np.arange(len(key))
    best = np.full(height * width, -1, np.int64)
    np.maximum.at(best, pixel, key)
    seen = np.flatnonzero(best >= 0)
    winner = best[seen] & 0xFFFFFFFF
    chosen = np.repeat(spans.face, spans.width)[winner]
    depth_there = 1 / closeness[winner]
    px = ((seen % width).astype(np.float32) + np.float32(0.5)) * depth_there
    py = ((seen // width).astype(np.float32) + np.float32(0.5)) * depth_there
    affine = np.einsum("fka,fkc->acf", near, values[corner]).astype(np.float32)
    got = np.empty((values.shape[1], len(chosen)), np.float32)
    # Channel by channel the small tables stay in the first cache.
    for channel, (a, b, c) in enumerate(affine.swapaxes(0, 1)):
        got[channel] = a[chosen] * px + b[chosen] * py + c[chosen] * depth_there
    return Hits(seen, front[chosen], got)
