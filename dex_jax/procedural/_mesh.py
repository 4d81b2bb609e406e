"""Triangle meshes of simple solids, in metres: x forward, y left, z up."""

from typing import NamedTuple

import numpy as np

# How a surface is painted (see _paint.py).
SHELL, CARGO, WHEEL, PLAIN, GLOW = range(5)


class Surface(NamedTuple):
    """What a part is made of."""

    kind: int
    color: tuple[float, float, float]
    gloss: float = 0.1


class Mesh(NamedTuple):
    """Triangles that share vertices, wound counter-clockwise seen from outside."""

    points: np.ndarray
    """`[V, 3]` float32."""
    normals: np.ndarray
    """`[V, 3]` float32, unit length."""
    uv: np.ndarray
    """`[V, 2]` float32 surface coordinates: (s, t) of a loft, polar of a wheel."""
    faces: np.ndarray
    """`[F, 3]` int32 vertex numbers."""
    part: np.ndarray
    """`[F]` int32 numbers into `surfaces`."""
    surfaces: tuple[Surface, ...]


def join(meshes: list[Mesh]) -> Mesh:
    """Puts meshes into one, renumbering vertices and surfaces."""
    vertex_start = np.cumsum([0] + [len(m.points) for m in meshes])
    surface_start = np.cumsum([0] + [len(m.surfaces) for m in meshes])
    return Mesh(
        np.concatenate([m.points for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate(
            [m.faces + v for m, v in zip(meshes, vertex_start, strict=False)]
        ),
        np.concatenate(
            [m.part + s for m, s in zip(meshes, surface_start, strict=False)]
        ),
        sum((m.surfaces for m in meshes), ()),
    )


def _smooth_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (points[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)  # [F, 3], length = twice the area
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    size = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(size, 1e-9)).astype(np.float32)


def _bevel(rows: np.ndarray, radius: float) -> np.ndarray:
    """Cuts every inner corner of a chain of rows `[R, M, C]` at most `radius` off."""
    inner, before, after = rows[1:-1], rows[:-2], rows[2:]
    out = [rows[:1]]
    pair = []
    for other in (before, after):
        size = np.linalg.norm((other - inner)[..., :3], axis=-1).max(axis=1)
        part = np.minimum(0.45, radius / np.maximum(size, 1e-6))[:, None, None]
        pair.append(inner + part * (other - inner))
    out.append(np.stack(pair, axis=1).reshape(-1, *rows.shape[1:]))
    out.append(rows[-1:])
    return np.concatenate(out)


def loft(
    rows: np.ndarray, surface: Surface, *, radius: tuple[float, float] = (0.08, 0.05)
) -> Mesh:
    """Skins cross-sections `[R, M, 5]` of (x, y, z, s, t) and mirrors them in y.

    Rows run from the front to the rear, points from the sill (t = 0) up to the
    centre line; corners are bevelled by `radius` along the rows and the points.
    """
    rows = _bevel(np.asarray(rows, np.float64), radius[0])
    grid = _bevel(rows.swapaxes(0, 1), radius[1]).swapaxes(0, 1)
    n, m = grid.shape[:2]
    corner = (np.arange(n - 1)[:, None] * m + np.arange(m - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + m, corner + m + 1], axis=1),
            np.stack([corner, corner + m + 1, corner + 1], axis=1),
        ]
    )
    flat = grid.reshape(-1, 5)
    mirrored = flat * np.array([1, -1, 1, 1, 1])
    both = np.concatenate([flat, mirrored])
    faces = np.concatenate([faces, faces[:, ::-1] + len(flat)])
    points = both[:, :3]
    area = np.cross(
        points[faces[:, 1]] - points[faces[:, 0]],
        points[faces[:, 2]] - points[faces[:, 0]],
    )
    faces = faces[np.linalg.norm(area, axis=1) > 1e-8]
    normals = _smooth_normals(points, faces)
    # Both halves meet on the centre line; there the normal has no sideways part.
    seam = np.abs(points[:, 1]) < 1e-6
    normals[seam, 1] = 0
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    return Mesh(
        points.astype(np.float32),
        normals.astype(np.float32),
        both[:, 3:].astype(np.float32),
        faces.astype(np.int32),
        np.zeros(len(faces), np.int32),
        (surface,),
    )


def box(
    center: tuple[float, float, float],
    size: tuple[float, float, float],
    surface: Surface,
) -> Mesh:
    """An axis-aligned box with flat faces."""
    points, normals, faces = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = (axis + 1) % 3, (axis + 2) % 3
            corners = np.zeros((4, 3))
            corners[:, axis] = sign
            corners[:, u] = np.array([-1, 1, 1, -1]) * sign
            corners[:, v] = [-1, -1, 1, 1]
            start = 4 * len(points)
            points.append(corners * np.asarray(size) / 2 + center)
            normal = np.zeros(3)
            normal[axis] = sign
            normals.append(np.repeat(normal[None], 4, axis=0))
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    return Mesh(
        np.concatenate(points).astype(np.float32),
        np.concatenate(normals).astype(np.float32),
        np.zeros((24, 2), np.float32),
        np.asarray(faces, np.int32),
        np.zeros(12, np.int32),
        (surface,),
    )


def cylinder(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
    surface: Surface,
    *,
    sides: int = 10,
) -> Mesh:
    """A closed cylinder between two points; `uv` of the caps is the unit disc."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    axis = (b - a) / np.linalg.norm(b - a)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)
    angle = np.arange(sides) * (2 * np.pi / sides)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [sides, 2]
    ring = unit @ np.stack([side, up])  # [sides, 3]
    nxt = (np.arange(sides) + 1) % sides
    i = np.arange(sides)
    hull = np.concatenate(
        [
            np.stack([i, nxt, nxt + sides], axis=1),
            np.stack([i, nxt + sides, i + sides], axis=1),
        ]
    )
    fan = np.stack([np.zeros(sides - 2, int), i[1:-1], i[2:]], axis=1)
    points = np.concatenate([a + radius * ring, b + radius * ring] * 2)
    normals = np.concatenate(
        [ring, ring, np.tile(-axis, (sides, 1)), np.tile(axis, (sides, 1))]
    )
    # A hull vertex lies outside the unit disc, so that the tread is not rim.
    uv = np.concatenate([unit * 1.2, unit * 1.2, unit, unit])
    faces = np.concatenate([hull, fan[:, ::-1] + 2 * sides, fan + 3 * sides])
    return Mesh(
        points.astype(np.float32),
        normals.astype(np.float32),
        uv.astype(np.float32),
        faces.astype(np.int32),
        np.zeros(len(faces), np.int32),
        (surface,),
    )
