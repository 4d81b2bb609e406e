"""The road and the roadside behind a vehicle, with the vehicle's shadow."""

import numpy as np

from dex_jax.procedural._scene import LANE, Camera, Light, grain
from dex_jax.procedural._view import View

_FLOAT = np.float32


def surroundings(
    camera: Camera,
    view: View,
    light: Light,
    slabs: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    *,
    pixel: float,
) -> np.ndarray:
    """Colours what is seen past the vehicle.

    Args:
        camera: chooses verge, wall and markings.
        view: the camera and the vehicle.
        light: of the scene.
        slabs: `[L, 4]` rectangles that throw the shadow.
        u: `[n]` image coordinates to the right.
        v: `[n]` image coordinates downwards.
        pixel: width of a pixel in image coordinates.

    Returns:
        `[3, n]` float32 linear light.
    """
    ray = [
        _FLOAT(f) + _FLOAT(r) * u + _FLOAT(d) * v
        for r, d, f in zip(*view.axes, strict=True)
    ]
    eye = view.eye.astype(_FLOAT)
    reach = np.where(ray[2] < -0.01, -eye[2] / np.minimum(ray[2], -0.01), 1e3)
    left = ray[1] > 0
    far = np.where(left, 1.5 * LANE + 5.5, -0.5 * LANE - 5.5) - eye[1]
    to_wall = far / np.where(np.abs(ray[1]) < 1e-4, 1e-4, ray[1])
    wall = (to_wall > 0) & (to_wall < reach)
    out = np.empty((3, len(u)), _FLOAT)
    flat, rest = np.flatnonzero(~wall), np.flatnonzero(wall)
    if flat.size:
        near = reach[flat].astype(_FLOAT)
        x, y = eye[0] + near * ray[0][flat], eye[1] + near * ray[1][flat]
        base = _ground(camera, x, y, np.maximum(near * _FLOAT(1.5 * pixel), 0.01))
        sky, sun = _reaching(view, light, slabs, x, y)
        for channel in range(3):
            lit = _FLOAT(light.sky[channel]) * sky + sun
            out[channel, flat] = base[channel] * lit
    if rest.size:
        near = np.minimum(to_wall[rest], 300).astype(_FLOAT)
        x, z = eye[0] + near * ray[0][rest], eye[2] + near * ray[2][rest]
        out[:, rest] = _roadside(camera, light, x, z, left[rest])
    return out


def _reaching(
    view: View, light: Light, slabs: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sky and sun that reach the ground beside and under the vehicle, `[n]` each."""
    c, s = view.turn[0, 0], view.turn[1, 0]
    x, y = x - _FLOAT(view.place[0]), y - _FLOAT(view.place[1])
    x, y = _FLOAT(c) * x + _FLOAT(s) * y, _FLOAT(c) * y - _FLOAT(s) * x
    start, end, half, _ = slabs[0]
    dx = np.abs(x - _FLOAT((start + end) / 2)) - _FLOAT((end - start) / 2)
    dy = np.abs(y) - _FLOAT(half)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    inside = np.clip(np.maximum(dx, dy), -0.4, 0)
    closed = _FLOAT(0.62) * np.exp(outside * _FLOAT(-3)) - _FLOAT(0.6) * inside
    sky = 1 - np.minimum(closed, 0.92)
    direction = light.direction @ view.turn
    if light.sun <= 0:
        return sky, np.zeros_like(sky)
    shadow = np.zeros_like(sky)
    for start, end, half, height in slabs:
        shift = -direction[:2] / direction[2] * height
        soft = 0.12 + 0.12 * height
        dx = np.abs(x - _FLOAT((start + end) / 2 + shift[0])) - _FLOAT(
            (end - start) / 2
        )
        dy = np.abs(y - _FLOAT(shift[1])) - _FLOAT(half)
        edge = np.maximum(dx, dy) * _FLOAT(-1 / soft) + _FLOAT(0.5)
        shadow = np.maximum(shadow, edge)
    return sky, _FLOAT(light.sun * direction[2]) * (1 - np.clip(shadow, 0, 1))


def _line(distance: np.ndarray, width: float, pixel: np.ndarray) -> np.ndarray:
    """Coverage of a painted line, smoothed over the pixel's size on the ground."""
    return np.clip((_FLOAT(width / 2) - np.abs(distance)) / pixel + _FLOAT(0.5), 0, 1)


def _ground(
    camera: Camera, x: np.ndarray, y: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    """Reflectance `[3, n]` at ground points; the vehicle's lane is centred on y = 0."""
    cloud, fine = grain(x, y, 0.11, 0), grain(x, y, 0.03, 1)
    fine *= np.minimum(_FLOAT(0.03) / pixel, 1)
    grey = _FLOAT(0.112) + _FLOAT(0.010) * cloud + _FLOAT(0.018) * fine
    # Wheels polish their tracks; here and there the road was mended.
    grey += _FLOAT(0.008) * (np.abs(np.abs(y) - _FLOAT(0.8)) < 0.35)
    grey *= np.where(grain(x + 31, y, 0.4, 0) > 1.4, _FLOAT(0.8), _FLOAT(1))
    left, right = 1.5 * LANE, -0.5 * LANE - 0.5
    mark = _line(y + _FLOAT(0.5 * LANE + 0.1), 0.13, pixel)
    mark += _line(y - _FLOAT(0.5 * LANE), 0.13, pixel) * (x % 9 < 4)
    mark += _line(y - _FLOAT(left - 0.2), 0.13, pixel)
    if camera.crossing:
        mark += (y % 1 < 0.5) & (np.abs(x + _FLOAT(3.2)) < 1.5)
    mark = np.minimum(mark, 1) * np.clip(_FLOAT(0.85) + _FLOAT(0.25) * cloud, 0, 1)
    out = np.stack([grey, grey * _FLOAT(0.99), grey * _FLOAT(0.97)])
    for channel, paint in enumerate((0.62, 0.61, 0.57)):
        out[channel] += mark * (_FLOAT(paint) - out[channel])
    at = np.flatnonzero((y > left) | (y < right))
    if at.size:
        out[:, at] = _verge(camera, x[at], y[at], cloud[at], fine[at])
    return out


_VERGES = np.array(
    [[0.115, 0.165, 0.055], [0.27, 0.215, 0.155], [0.33, 0.32, 0.30]], _FLOAT
)


def _verge(
    camera: Camera, x: np.ndarray, y: np.ndarray, cloud: np.ndarray, fine: np.ndarray
) -> np.ndarray:
    """Grass, earth or pavement behind a kerb, `[3, n]`."""
    left, right = 1.5 * LANE, -0.5 * LANE - 0.5
    depth = np.where(y > 0, y - _FLOAT(left), _FLOAT(right) - y)
    soft, rough = ((0.16, 0.20), (0.14, 0.13), (0.06, 0.05))[camera.verge]
    shade = 1 + _FLOAT(soft) * cloud + _FLOAT(rough) * fine
    if camera.verge == 2:
        shade -= _FLOAT(0.22) * ((x % _FLOAT(0.6) < 0.035) | (y % _FLOAT(0.6) < 0.035))
    out = _VERGES[camera.verge][:, None] * np.maximum(shade, 0.25)
    out = np.where(depth < 0.22, _FLOAT(0.36) + _FLOAT(0.02) * fine, out)
    return np.where(depth < 0.05, _FLOAT(0.07), out)


def _roadside(
    camera: Camera, light: Light, x: np.ndarray, z: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """A hedge, houses or a wall along the road, and the sky above, `[3, n]`."""
    x = np.where(left, x + 40, x)
    cloud, fine = grain(x, z * 2, 0.12, 0), grain(x, z, 0.05, 1)
    if camera.wall == 1:
        color, top = _houses(x, z, cloud)
    elif camera.wall == 2:
        seam = (x % _FLOAT(2.5) < 0.08) | (np.abs(z - _FLOAT(1.1)) < 0.04)
        shade = 1 + _FLOAT(0.07) * cloud + _FLOAT(0.05) * fine - _FLOAT(0.3) * seam
        color, top = shade * np.array([[0.30], [0.30], [0.29]], _FLOAT), 2.4
    else:
        shade = np.maximum(1 + _FLOAT(0.3) * cloud + _FLOAT(0.26) * fine, 0.2)
        color = shade * np.array([[0.06], [0.10], [0.035]], _FLOAT)
        top = 3.6 + 1.1 * cloud if camera.wall == 0 else 1.6 + 0.25 * cloud
    sky = light.sky.astype(_FLOAT)[:, None]
    lit = color * (sky * _FLOAT(0.8) + _FLOAT(0.35 * light.sun))
    return np.where(z < top, lit, np.minimum(sky * _FLOAT(1.1), 1))


def _houses(
    x: np.ndarray, z: np.ndarray, cloud: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """House fronts `[3, n]` of several colours, with windows, and their height."""
    hue = np.floor(x / 9) * _FLOAT(0.618) % 1
    front = (_FLOAT(0.28) + _FLOAT(0.25) * hue) * (1 + _FLOAT(0.05) * cloud)
    across = np.abs(x / _FLOAT(2.25) % 1 - _FLOAT(0.5))
    up = np.abs(z / 3 % 1 - _FLOAT(0.55))
    front = np.where((across < 0.31) & (up < 0.28), front * _FLOAT(1.25), front)
    color = front * np.stack(
        [np.ones_like(hue), 0.86 + 0.1 * hue, 0.68 + 0.25 * hue]
    ).astype(_FLOAT)
    pane = (across < 0.27) & (up < 0.24) & ((across > 0.015) | (up > 0.24))
    glass = np.array([[0.06], [0.075], [0.09]], _FLOAT) * (1 + 2 * (z > 4)[None] * hue)
    return np.where(pane, glass, color), 8 + 3 * hue
