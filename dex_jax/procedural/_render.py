"""From a vehicle, a camera and a moment to an image."""

from dataclasses import dataclass

import numpy as np

from dex_jax.procedural._bodies import build
from dex_jax.procedural._lens import develop, occlude
from dex_jax.procedural._mesh import Mesh
from dex_jax.procedural._paint import Palette, codes, palette
from dex_jax.procedural._raster import rasterize
from dex_jax.procedural._road import surroundings
from dex_jax.procedural._scene import Camera, Light, light
from dex_jax.procedural._shade import shade
from dex_jax.procedural._vehicles import Vehicle
from dex_jax.procedural._view import Drive, View, crop, look, project

_FLOAT = np.float32


@dataclass(frozen=True)
class Subject:
    """A vehicle made ready for many frames."""

    vehicle: Vehicle
    mesh: Mesh
    palette: Palette
    values: np.ndarray
    """`[V, 8]` what is interpolated over the faces."""
    slabs: np.ndarray
    """`[L, 4]` rectangles for the shadow: x from, x to, half width, height."""


def prepare(vehicle: Vehicle) -> Subject:
    """Builds what all frames of a vehicle share."""
    mesh = build(vehicle)
    values = np.concatenate([mesh.points, mesh.normals, mesh.uv], axis=1)
    x, y, z = mesh.points.T
    slabs = []
    for share in (0.15, 0.45, 0.7, 0.93):
        above = z >= share * z.max()
        sides = x[above].min(), x[above].max(), np.abs(y[above]).max()
        slabs.append([*sides, share * z.max()])
    return Subject(vehicle, mesh, palette(vehicle, mesh), values, np.array(slabs))


def render(
    subject: Subject,
    camera: Camera,
    drive: Drive,
    phase: float,
    rng: np.random.Generator,
    *,
    size: int,
) -> np.ndarray:
    """Draws one frame.

    Args:
        subject: the vehicle.
        camera: the camera.
        drive: how the vehicle passes it.
        phase: where on its way the vehicle is, -1 to 1.
        rng: shakes the box and makes the noise.
        size: S, pixels a side.

    Returns:
        float32 `[S, S, 3]` in [0, 255], as the camera delivers it before the JPEG.
    """
    view = look(camera, drive, phase)
    uv, depth = project(view, subject.mesh.points)
    box = crop(uv, rng)
    sun = light(camera, elevation_shift=drive.elevation)
    layer = _vehicle(subject, view, (uv - box[0]) / (box[1] - box[0]), depth, sun, size)
    origin = np.zeros((1, 3))
    moved = (
        project(view, origin)[0] - project(look(camera, drive, phase - 0.02), origin)[0]
    )
    layer = _halve(_smear(layer, moved[0], camera.motion * size / 64))
    at = ((np.arange(size) + 0.5) / size)[:, None]
    u, v = (box[0] + at * (box[1] - box[0])).astype(_FLOAT).T  # [S] each
    image, cover = layer[:3].reshape(3, -1), layer[3].ravel()
    bare = np.flatnonzero(cover < 0.999)
    around = surroundings(
        camera,
        view,
        sun,
        subject.slabs,
        u[bare % size],
        v[bare // size],
        pixel=float(u[1] - u[0]),
    )
    image[:, bare] += around * (1 - cover[bare])
    image = image.reshape(3, size, size)
    if drive.occluder is not None:
        hidden, _ = project(
            look(camera, drive, drive.occluder.phase), subject.mesh.points
        )
        low, high = hidden.min(axis=0), hidden.max(axis=0)
        across, down = (np.stack([u, v]) - ((low + high) / 2)[:, None]) / (high - low)[
            :, None
        ]
        image = occlude(
            image,
            across[None].astype(_FLOAT),
            down[:, None].astype(_FLOAT),
            drive.occluder,
            sun,
            seed=drive.seed,
        )
    return develop(image, camera, drive, rng)


def _vehicle(
    subject: Subject,
    view: View,
    screen: np.ndarray,
    depth: np.ndarray,
    sun: Light,
    size: int,
) -> np.ndarray:
    """Draws the vehicle twice as fine: `[4, 2 S, 2 S]` light and coverage."""
    fine = 2 * size
    mesh, vehicle = subject.mesh, subject.vehicle
    hits = rasterize(
        screen * fine, depth, subject.values, mesh.faces, height=fine, width=fine
    )
    part = mesh.part[hits.face]
    spin = float(view.place[0]) / vehicle.model.measures.wheel
    code = codes(vehicle, mesh, hits.values, part, spin)
    eye = (view.eye - view.place) @ view.turn
    color = shade(
        subject.palette,
        code,
        hits.values,
        eye,
        sun._replace(direction=sun.direction @ view.turn),
        dirt=vehicle.dirt,
        seed=vehicle.plate,
    )
    layer = np.zeros((4, fine * fine), _FLOAT)
    for channel in range(3):
        layer[channel, hits.pixel] = color[channel]
    layer[3, hits.pixel] = 1
    return layer.reshape(4, fine, fine)


def _smear(layer: np.ndarray, motion: np.ndarray, reach: float) -> np.ndarray:
    """Motion blur: the mean over the shutter's time, `reach` pixels long."""
    if reach < 1:
        return layer
    step = motion / max(float(np.linalg.norm(motion)), 1e-9)
    shifts = [-0.5, 0.5] if reach < 3 else [-0.5, -0.25, 0.25, 0.5]
    total = layer.copy()
    for part in shifts:
        dx, dy = np.rint(step * reach * part).astype(int)
        total += np.roll(layer, (dy, dx), (1, 2))
    return total / _FLOAT(len(shifts) + 1)


def _halve(layer: np.ndarray) -> np.ndarray:
    rows = layer[:, ::2] + layer[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) * _FLOAT(0.25)
