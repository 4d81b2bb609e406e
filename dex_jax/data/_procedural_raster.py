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


def _runs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the members of consecutive runs: (run, place in the run)."""
    run = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return run, np.arange(len(run)) - first[run]


def _edges(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Edge functions a x + b y + c `[F, 3 edges, 3]`, positive inside."""
    x1, y1 = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    a, b = y - y1, x1 - x
    return np.stack([a, b, -(a * x + b * y)], axis=-1)


def _spans(
    edges: np.ndarray, y: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pixel of every triangle as (face, row, column)."""
    top = np.clip(np.ceil(y.min(axis=1) - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.floor(y.max(axis=1) - 0.5), -1, height - 1).astype(np.int64)
    face, place = _runs(np.maximum(bottom - top + 1, 0))
    row = top[face] + place
    a, b, c = edges[face].transpose(2, 1, 0)  # each [3, rows]
    rest = b * (row + 0.5) + c
    flat = np.abs(a) < 1e-9
    cut = -rest / np.where(flat, 1, a)
    low = np.where((a > 0) & ~flat, cut, 0).max(axis=0)
    high = np.where((a < 0) & ~flat, cut, width).min(axis=0)
    high = np.where((flat & (rest < 0)).any(axis=0), -1, high)
    left = np.ceil(np.clip(low, 0, width) - 0.5).astype(np.int64)
    right = np.floor(np.clip(high, -1, width) - 0.5).astype(np.int64)
    span, place = _runs(np.maximum(right - left + 1, 0))
    return face[span], row[span], left[span] + place


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
    face, row, column = _spans(edges, y, height, width)
    pixel = row * width + column
    a, b, c = whole.astype(np.float32)[face].T
    closeness = a * (column + np.float32(0.5)) + b * (row + np.float32(0.5)) + c
    scale = np.float32(2**30) / np.float32(inverse.max() * 1.01)
    key = (closeness * scale).astype(np.int64)
    key = (key << 32) | np.arange(len(key))
    best = np.full(height * width, -1, np.int64)
    np.maximum.at(best, pixel, key)
    seen = np.flatnonzero(best >= 0)
    winner = best[seen] & 0xFFFFFFFF
    affine = np.einsum("fka,fkc->fca", near, values[corner]).astype(np.float32)
    chosen = face[winner]
    wide = affine.reshape(len(front), -1)[chosen].reshape(len(chosen), -1, 3)
    px = (column[winner] + 0.5).astype(np.float32)
    py = (row[winner] + 0.5).astype(np.float32)
    got = (wide[..., 0].T * px + wide[..., 1].T * py + wide[..., 2].T) / closeness[
        winner
    ]
    return Hits(seen, front[chosen], got)
