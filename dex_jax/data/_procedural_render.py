"""From a vehicle, a camera and a moment to an image."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dex_jax.data._procedural_bodies import build
from dex_jax.data._procedural_mesh import Mesh
from dex_jax.data._procedural_paint import Palette, codes, palette
from dex_jax.data._procedural_raster import rasterize
from dex_jax.data._procedural_scene import Camera, Light, backdrop, grain, ground, light
from dex_jax.data._procedural_shade import shade
from dex_jax.data._procedural_vehicles import Vehicle

SUPERSAMPLING = 2
_FLOAT = np.float32


class Occluder(NamedTuple):
    """Something between the camera and the road."""

    kind: int
    """0 pole, 1 leaves, 2 another vehicle's roof, 3 sign."""
    phase: float
    """Where on its way the vehicle is behind it, -1 to 1."""
    size: float
    """Part of the vehicle's width in the image."""
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Drive:
    """One vehicle passing one camera: all that its frames share."""

    lane: float
    """Metres off the middle of the lane."""
    stretch: float
    """How much of the camera's view is driven through, about 1."""
    yaw: float
    """Degrees off the direction of the lane."""
    exposure: float
    elevation: float
    """Degrees by which the sun differs from the camera's usual."""
    blur: float
    occluder: Occluder | None
    seed: int


@dataclass(frozen=True)
class Subject:
    """A vehicle made ready for many frames."""

    vehicle: Vehicle
    mesh: Mesh
    palette: Palette
    values: np.ndarray
    """`[V, 8]` what is interpolated."""
    slabs: np.ndarray
    """`[L, 4]` rectangles for the shadow: x from, x to, half width, height."""


def prepare(vehicle: Vehicle) -> Subject:
    """Builds what all frames of a vehicle share."""
    mesh = build(vehicle)
    values = np.concatenate([mesh.points, mesh.normals, mesh.uv], axis=1)
    top = mesh.points[:, 2].max()
    slabs = []
    for share in (0.15, 0.45, 0.7, 0.93):
        above = mesh.points[mesh.points[:, 2] >= share * top]
        slabs.append(
            [
                above[:, 0].min(),
                above[:, 0].max(),
                np.abs(above[:, 1]).max(),
                share * top,
            ]
        )
    return Subject(vehicle, mesh, palette(vehicle, mesh), values, np.array(slabs))


class _View(NamedTuple):
    """The camera, the vehicle's place and the crop, in the road's frame."""

    eye: np.ndarray
    axes: np.ndarray
    """`[3, 3]` right, down, forward."""
    place: np.ndarray
    turn: np.ndarray
    """`[3, 3]` from the vehicle's frame to the road's."""


def _view(camera: Camera, drive: Drive, phase: float) -> _View:
    azimuth = np.radians(camera.azimuth)
    eye = np.array(
        [
            camera.distance * np.cos(azimuth),
            camera.distance * np.sin(azimuth),
            camera.height,
        ]
    )
    forward = np.array([0.0, 0.0, 0.8]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    way = phase * 0.5 * camera.sweep * drive.stretch
    bend = np.radians(camera.bend)
    heading = bend * phase * 0.5 + np.radians(drive.yaw)
    c, s = np.cos(heading), np.sin(heading)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    place = np.array([way, drive.lane + 0.25 * bend * way * phase, 0.0])
    return _View(eye, np.stack([right, down, forward]), place, turn)


def _project(view: _View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the vehicle's frame to image coordinates `[n, 2]` and depth `[n]`."""
    seen = (points @ view.turn.T + view.place - view.eye) @ view.axes.T
    return seen[:, :2] / seen[:, 2:], seen[:, 2]


def _crop(uv: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A detector's box `[2 corners, 2]`: loose, shaky, squeezed by a third at most."""
    low, high = uv.min(axis=0), uv.max(axis=0)
    size = high - low
    low = low - size * rng.uniform(0.02, 0.10, 2)
    high = high + size * rng.uniform(0.02, 0.10, 2)
    size, middle = high - low, (low + high) / 2
    size = np.maximum(size, size.max() / 1.3)
    return np.stack([middle - size / 2, middle + size / 2])


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
    view = _view(camera, drive, phase)
    uv, depth = _project(view, subject.mesh.points)
    crop = _crop(uv, rng)
    sunlight = light(camera, elevation_shift=drive.elevation)
    layer = _vehicle(subject, view, uv, depth, crop, sunlight, phase, size)
    before = _project(_view(camera, drive, phase - 0.02), np.zeros((1, 3)))[0]
    layer = _smear(layer, (_project(view, np.zeros((1, 3)))[0] - before)[0], camera)
    layer = layer.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4).mean((1, 3))
    scene, grid = _background(subject, camera, view, crop, sunlight, size)
    image = layer[..., :3] + scene * (1 - layer[..., 3:])
    if drive.occluder is not None:
        image = _occlude(image, grid, drive, camera, subject, sunlight)
    return _develop(image, camera, drive, rng, size)


def _vehicle(
    subject: Subject,
    view: _View,
    uv: np.ndarray,
    depth: np.ndarray,
    crop: np.ndarray,
    sunlight: Light,
    phase: float,
    size: int,
) -> np.ndarray:
    """Draws the vehicle: `[S', S', 4]` light and coverage, S' supersampled."""
    fine = size * SUPERSAMPLING
    screen = (uv - crop[0]) / (crop[1] - crop[0]) * fine
    hits = rasterize(
        screen, depth, subject.values, subject.mesh.faces, height=fine, width=fine
    )
    vehicle = subject.vehicle
    part = subject.mesh.part[hits.face].astype(np.int64)
    spin = 6.0 * phase / vehicle.model.measures.wheel
    code = codes(vehicle, subject.mesh, hits.values, part, spin)
    eye = (view.eye - view.place) @ view.turn
    local = sunlight._replace(direction=sunlight.direction @ view.turn)
    color = shade(
        subject.palette, code, hits.values, eye, local, dirt=vehicle.dirt,
        seed=vehicle.plate,
    )  # fmt: skip
    layer = np.zeros((fine * fine, 4), _FLOAT)
    layer[hits.pixel, :3] = color.T
    layer[hits.pixel, 3] = 1
    return layer.reshape(fine, fine, 4)


def _smear(layer: np.ndarray, motion: np.ndarray, camera: Camera) -> np.ndarray:
    """Motion blur: the mean over the shutter's time."""
    if camera.motion <= 0:
        return layer
    step = motion / max(np.linalg.norm(motion), 1e-9)
    reach = camera.motion * layer.shape[0] / 128
    total = layer.copy()
    shifts = [-0.5, 0.5] if reach < 2 else [-0.5, -0.25, 0.25, 0.5]
    for part in shifts:
        dx, dy = np.rint(step * reach * part).astype(int)
        total += np.roll(layer, (dy, dx), (0, 1))
    return total / _FLOAT(len(shifts) + 1)


def _background(
    subject: Subject,
    camera: Camera,
    view: _View,
    crop: np.ndarray,
    sunlight: Light,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the road and what stands beside it; also image coordinates `[S, S, 2]`."""
    at = ((np.arange(size) + 0.5) / size).astype(_FLOAT)
    u, v = np.meshgrid(
        crop[0, 0] + at * (crop[1, 0] - crop[0, 0]),
        crop[0, 1] + at * (crop[1, 1] - crop[0, 1]),
    )
    grid = np.stack([u, v], axis=-1).astype(_FLOAT)
    right, down, forward = view.axes.astype(_FLOAT)
    ray = forward + grid[..., :1] * right + grid[..., 1:] * down
    ray = ray.reshape(-1, 3)
    eye = view.eye.astype(_FLOAT)
    reach = np.where(ray[:, 2] < -0.01, -eye[2] / np.minimum(ray[:, 2], -0.01), 1e3)
    side = np.where(ray[:, 1] > 0, 1.0, -1.0).astype(_FLOAT)
    far = np.where(side > 0, 1.5, 0.5) * camera.lane + 5.5
    to_wall = (side * far - eye[1]) / np.where(
        np.abs(ray[:, 1]) < 1e-4, 1e-4, ray[:, 1]
    )
    to_wall = np.where(to_wall > 0, to_wall, 1e4)
    out = np.empty((size * size, 3), _FLOAT)
    flat = np.flatnonzero(reach < to_wall)
    pixel = reach[flat] * _FLOAT((crop[1, 0] - crop[0, 0]) / size * 1.5)
    hit = eye[:2] + reach[flat, None] * ray[flat, :2]
    base = ground(camera, hit[:, 0], hit[:, 1], np.maximum(pixel, 0.01))
    out[flat] = base * _on_ground(subject, view, hit, sunlight)
    rest = np.flatnonzero(reach >= to_wall)
    if rest.size:
        out[rest] = _beyond(camera, eye, ray[rest], to_wall[rest], side[rest], sunlight)
    return out.reshape(size, size, 3), grid


def _beyond(
    camera: Camera,
    eye: np.ndarray,
    ray: np.ndarray,
    reach: np.ndarray,
    side: np.ndarray,
    sunlight: Light,
) -> np.ndarray:
    reach = np.minimum(reach, 300)
    color, solid = backdrop(
        camera, eye[0] + reach * ray[:, 0], eye[2] + reach * ray[:, 2], side
    )
    sky = sunlight.sky.astype(_FLOAT)
    lit = color * (sky * _FLOAT(0.8) + _FLOAT(0.35 * sunlight.sun))
    return np.where(solid[:, None], lit, np.clip(sky * _FLOAT(1.1), 0, 1))


def _on_ground(
    subject: Subject, view: _View, hit: np.ndarray, sunlight: Light
) -> np.ndarray:
    """Light on the ground `[n, 3]` with the vehicle's shadow and its dark below."""
    local = (hit - view.place[:2].astype(_FLOAT)) @ view.turn[:2, :2].astype(_FLOAT)
    x, y = local.T
    sun = sunlight.direction @ view.turn
    shadow = np.zeros(len(x), _FLOAT)
    for start, end, half, height in subject.slabs:
        shift = -sun[:2] / sun[2] * height
        soft = 0.12 + 0.12 * height
        dx = np.abs(x - (start + end) / 2 - shift[0]) - (end - start) / 2
        dy = np.abs(y - shift[1]) - half
        out = np.maximum(dx, dy)
        shadow = np.maximum(shadow, np.clip(0.5 - out / soft, 0, 1))
    start, end, half, _ = subject.slabs[0]
    dx = np.maximum(np.abs(x - (start + end) / 2) - (end - start) / 2, -0.4)
    dy = np.maximum(np.abs(y) - half, -0.4)
    near = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    inside = np.minimum(np.maximum(dx, dy), 0)
    closed = np.clip(0.62 * np.exp(-near / 0.35) - 0.6 * inside, 0, 0.92)
    sky = sunlight.sky.astype(_FLOAT) * (1 - closed)[:, None]
    direct = _FLOAT(sunlight.sun * sunlight.direction[2]) * (1 - shadow)
    return sky + direct[:, None].astype(_FLOAT)


def _occlude(
    image: np.ndarray,
    grid: np.ndarray,
    drive: Drive,
    camera: Camera,
    subject: Subject,
    sunlight: Light,
) -> np.ndarray:
    """Puts the drive's occluder in front; it stays in place while vehicles pass."""
    thing = drive.occluder
    if thing is None:
        return image
    view = _view(camera, drive, thing.phase)
    uv, _ = _project(view, subject.mesh.points)
    low, high = uv.min(axis=0), uv.max(axis=0)
    size = high - low
    u = (grid[..., 0] - (low[0] + high[0]) / 2) / size[0]
    v = (grid[..., 1] - (low[1] + high[1]) / 2) / size[1]
    pixel = 1.5 * (grid[0, 1, 0] - grid[0, 0, 0]) / size[0]
    round_light = np.ones_like(u)
    if thing.kind == 0:
        across = (u + 0.04 * v) / (0.5 * thing.size)
        inside = (1 - np.abs(across)) * (0.5 * thing.size)
        round_light = 0.65 + 0.5 * np.sqrt(np.clip(1 - across**2, 0, 1))
    elif thing.kind == 1:
        leaf = grain(u * 2.0 + drive.seed % 50, v * 1.4 + 3, 0.012, 0)
        inside = (
            0.12 * leaf - 0.12 + (thing.size * 2.2 - np.hypot(u - 0.2, v + 0.5)) * 0.5
        )
        round_light = 0.8 + 0.35 * grain(u * 2.0, v * 2.0, 0.02, 1)
    elif thing.kind == 2:
        level = 0.5 - thing.size * (
            1 - 0.35 * np.minimum(np.abs(u - 0.1) / 0.7, 1.6) ** 4
        )
        inside = v - level
        round_light = np.where(v - level < 0.06, 1.2, 0.8)
    else:
        inside = 0.5 * thing.size * 1.6 - np.maximum(np.abs(u), np.abs(v + 0.1))
        round_light = np.where(inside < 0.02, 1.6, 1.0)
    cover = np.clip(inside / pixel + 0.5, 0, 1)[..., None]
    base = np.square(np.asarray(thing.color, _FLOAT))
    lit = base * (sunlight.sky + 0.5 * sunlight.sun).astype(_FLOAT)
    return image + cover * (np.maximum(round_light, 0.2)[..., None] * lit - image)


def _develop(
    image: np.ndarray,
    camera: Camera,
    drive: Drive,
    rng: np.random.Generator,
    size: int,
) -> np.ndarray:
    """Lens, sensor and processing of the camera."""
    image = image * (np.asarray(camera.tint) * camera.exposure * drive.exposure).astype(
        _FLOAT
    )
    sigma = np.hypot(camera.blur, drive.blur) * size / 128
    image = _blur(image, float(sigma))
    # A soft shoulder keeps white paint from burning out; then the usual gamma of 2.
    image = np.sqrt(np.maximum(image / (1 + 0.22 * image), 0))
    image = (image - 0.45) * _FLOAT(camera.contrast) + 0.45
    image = image + _FLOAT(camera.noise) * rng.standard_normal(image.shape, _FLOAT)
    return np.clip(image * 255, 0, 255).astype(_FLOAT)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma < 0.2:
        return image
    reach = max(1, int(np.ceil(2 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(_FLOAT)
    for axis in (0, 1):
        width = [(0, 0)] * 3
        width[axis] = (reach, reach)
        wide = np.pad(image, width, mode="edge")
        n = image.shape[axis]
        image = sum(
            tap * (wide[i : i + n] if axis == 0 else wide[:, i : i + n])
            for i, tap in enumerate(taps)
        )
    return image
