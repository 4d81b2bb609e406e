"""Cameras, daylight, and the road and roadside behind a vehicle."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """A camera on a pole beside or above a road that runs along x."""

    azimuth: float
    """Where it stands, in degrees from the vehicles' heading: 0 sees fronts."""
    height: float
    """Metres above the road."""
    distance: float
    """Metres along the ground to where the vehicles pass."""
    sweep: float
    """Metres that a vehicle drives in view."""
    bend: float
    """Degrees that the road turns on the way."""
    sun: tuple[float, float, float]
    """Azimuth and elevation in degrees, strength 0 (overcast) to 1."""
    exposure: float
    tint: Color
    contrast: float
    noise: float
    blur: float
    """Standard deviation in pixels of a 128-pixel image."""
    motion: float
    """Length of the motion blur in pixels of a 128-pixel image."""
    quality: int
    """Of the JPEG file."""
    verge: int
    """0 grass, 1 earth, 2 pavement."""
    wall: int
    """Behind the verge: 0 hedge, 1 houses, 2 concrete, 3 open sky."""
    crossing: bool = False
    lane: float = 3.5
    """Width of a lane in metres."""


CAMERAS: tuple[Camera, ...] = (
    Camera(8, 5.5, 15, 12, 0, (60, 50, 0.9), 1.00, (1.00, 1.00, 1.00), 1.00, 0.012,
           0.35, 0.0, 88, 0, 0),
    Camera(172, 6.5, 14, 11, 0, (150, 40, 0.7), 1.05, (1.06, 1.0, 0.92), 1.05, 0.015,
           0.4, 1.0, 84, 2, 1),
    Camera(52, 4.2, 10, 8, 0, (20, 60, 1.0), 1.10, (1.02, 1.01, 0.96), 1.08, 0.010,
           0.3, 1.5, 90, 0, 3),
    Camera(-128, 5.0, 12, 9, 18, (240, 35, 0.3), 0.95, (0.93, 1.0, 1.08), 0.92, 0.022,
           0.6, 0.8, 76, 1, 2),
    Camera(-40, 8.5, 14, 10, -15, (310, 55, 0.8), 1.00, (1.0, 1.02, 0.95), 1.0, 0.014,
           0.4, 1.0, 86, 2, 1, True),
    Camera(90, 3.4, 9, 6, 0, (40, 45, 0.9), 1.08, (1.05, 1.0, 0.95), 1.04, 0.012,
           0.3, 2.5, 88, 2, 1),
    Camera(142, 9.5, 15, 11, 10, (100, 30, 0.5), 0.88, (0.95, 0.98, 1.06), 0.95, 0.020,
           0.55, 1.0, 80, 0, 0),
    Camera(-15, 4.6, 12, 9, 0, (200, 25, 0.55), 0.72, (1.10, 0.98, 0.86), 1.05, 0.030,
           0.5, 1.2, 74, 1, 2),
    Camera(-95, 5.2, 11, 7, 12, (0, 0, 0.0), 0.98, (0.97, 1.0, 1.03), 0.88, 0.016,
           0.7, 1.8, 82, 0, 0, True),
    Camera(205, 4.0, 11, 9, -8, (330, 65, 1.0), 1.20, (1.0, 1.0, 1.02), 1.12, 0.010,
           0.35, 1.0, 90, 2, 3),
    Camera(28, 11.0, 17, 12, 0, (120, 50, 0.6), 1.02, (0.98, 1.03, 0.97), 0.96, 0.018,
           0.5, 0.6, 78, 1, 1, True),
    Camera(-160, 3.2, 10, 8, 0, (80, 20, 0.75), 0.85, (1.08, 1.0, 0.90), 1.0, 0.024,
           0.45, 1.4, 80, 0, 0),
)  # fmt: skip


class Light(NamedTuple):
    """Daylight as one camera sees it."""

    direction: np.ndarray
    """`[3]` unit vector to the sun."""
    sun: float
    sky: np.ndarray
    """`[3]` linear."""
    ground: np.ndarray
    """`[3]` linear, what the road throws back."""


def light(camera: Camera, *, elevation_shift: float = 0.0) -> Light:
    """Sets the daylight of a camera, in the road's frame."""
    azimuth = np.radians(camera.sun[0])
    elevation = np.radians(max(camera.sun[1] + elevation_shift, 18.0))
    direction = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    strength = camera.sun[2]
    grey = np.array([0.80, 0.82, 0.84])
    blue = np.array([0.52, 0.62, 0.78])
    sky = grey + (blue - grey) * strength
    return Light(
        direction,
        1.15 * strength,
        sky * (0.95 - 0.25 * strength),
        np.array([0.20, 0.195, 0.18]) * (0.8 + 0.5 * strength),
    )


def tile(seed: int = 7, size: int = 256) -> np.ndarray:
    """A seamless noise picture `[2, size, size]`, mean 0: cloudy and fine grain."""
    rng = np.random.default_rng(seed)
    fine = rng.standard_normal((size, size))
    soft = (
        fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1))
    ) / 2
    cloudy = np.zeros((size, size))
    for step, weight in ((64, 1.0), (32, 0.7), (16, 0.5), (8, 0.35)):
        coarse = rng.standard_normal((size // step, size // step))
        cloudy += weight * _stretch(coarse, step)
    return np.stack([cloudy / cloudy.std(), soft / soft.std()]).astype(np.float32)


def _stretch(coarse: np.ndarray, step: int) -> np.ndarray:
    """Wraps around and interpolates smoothly."""
    at = np.arange(coarse.shape[0] * step) / step
    whole = at.astype(int)
    part = at - whole
    part = part * part * (3 - 2 * part)
    after = (whole + 1) % coarse.shape[0]
    rows = coarse[whole] * (1 - part)[:, None] + coarse[after] * part[:, None]
    return rows[:, whole] * (1 - part) + rows[:, after] * part


TILE = tile()


def grain(x: np.ndarray, y: np.ndarray, scale: float, layer: int) -> np.ndarray:
    """Noise at points, `scale` metres a pixel of the tile."""
    u = (x * np.float32(1 / scale)).astype(np.int32) & 255
    v = (y * np.float32(1 / scale)).astype(np.int32) & 255
    return TILE[layer][u, v]


def _line(distance: np.ndarray, width: float, pixel: np.ndarray) -> np.ndarray:
    """Coverage of a painted line, smoothed over the pixel's size on the ground."""
    return np.clip((width / 2 - np.abs(distance)) / pixel + 0.5, 0, 1)


def ground(
    camera: Camera, x: np.ndarray, y: np.ndarray, pixel: np.ndarray
) -> np.ndarray:
    """Colours the ground at points of the road's frame.

    Args:
        camera: chooses verge and markings.
        x: `[n]` along the road.
        y: `[n]` across it; the vehicle's lane is centred on 0.
        pixel: `[n]` size of a pixel on the ground, in metres.

    Returns:
        `[n, 3]` linear reflectance.
    """
    cloud, fine = grain(x, y, 0.11, 0), grain(x, y, 0.03, 1)
    fade = np.minimum(1, 0.05 / pixel)
    worn = np.abs(np.abs(y) - 0.8) < 0.35  # wheel tracks are polished
    grey = 0.105 + 0.010 * cloud + 0.022 * fine * fade + 0.008 * worn
    patch = grain(x + 31, y, 0.4, 0) > 1.4
    grey = np.where(patch, grey * 0.8, grey)
    out = grey[:, None] * np.array([1.0, 0.99, 0.97], np.float32)
    wide = camera.lane
    edge_left, edge_right = 1.5 * wide, -0.5 * wide - 0.5
    mark = _line(y + 0.5 * wide + 0.1, 0.13, pixel)
    dash = (x % 9.0) < 4.0
    mark = np.maximum(mark, _line(y - 0.5 * wide, 0.13, pixel) * dash)
    mark = np.maximum(mark, _line(y - edge_left + 0.2, 0.13, pixel))
    if camera.crossing:
        bars = ((y / 1.0) % 1 < 0.5) & (np.abs(x + 3.2) < 1.5)
        mark = np.maximum(mark, bars)
    mark = mark * np.clip(0.85 + 0.25 * cloud, 0, 1)
    paint = np.array([0.62, 0.61, 0.57], np.float32)
    out += mark[:, None] * (paint - out)
    beyond = (y > edge_left) | (y < edge_right)
    at = np.flatnonzero(beyond)
    if at.size:
        depth = np.where(y[at] > 0, y[at] - edge_left, edge_right - y[at])
        out[at] = _verge(camera, x[at], y[at], depth, cloud[at], fine[at] * fade[at])
    return out


def _verge(
    camera: Camera,
    x: np.ndarray,
    y: np.ndarray,
    depth: np.ndarray,
    cloud: np.ndarray,
    fine: np.ndarray,
) -> np.ndarray:
    if camera.verge == 0:
        base = np.array([0.115, 0.165, 0.055], np.float32)
        shade = 1 + 0.16 * cloud + 0.28 * fine
    elif camera.verge == 1:
        base = np.array([0.27, 0.215, 0.155], np.float32)
        shade = 1 + 0.14 * cloud + 0.16 * fine
    else:
        base = np.array([0.33, 0.32, 0.30], np.float32)
        joint = ((x % 0.6) < 0.035) | ((y % 0.6) < 0.035)
        shade = 1 + 0.06 * cloud + 0.05 * fine - 0.22 * joint
    out = np.maximum(shade, 0.25)[:, None] * base
    kerb = depth < 0.22
    out[kerb] = (0.36 + 0.02 * fine[kerb])[:, None] * np.float32([1, 0.99, 0.96])
    out[depth < 0.05] = 0.07
    return out


def backdrop(
    camera: Camera, x: np.ndarray, z: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours an upright plane along the road: `[n, 3]` colours and where it ends."""
    cloud = grain(x + 40 * side, z * 2, 0.12, 0)
    fine = grain(x + 40 * side, z, 0.05, 1)
    if camera.wall in (0, 3):
        top = 1.6 + 0.25 * cloud if camera.wall == 3 else 3.6 + 1.1 * cloud
        base = np.array([0.06, 0.10, 0.035], np.float32)
        color = np.maximum(1 + 0.3 * cloud + 0.35 * fine, 0.2)[:, None] * base
    elif camera.wall == 1:
        house = np.floor(x / 9.0)
        hue = (house * 0.618 + 0.3 * side) % 1
        base = 0.28 + 0.25 * hue
        color = base[:, None] * np.stack(
            [np.ones_like(hue), 0.86 + 0.1 * hue, 0.68 + 0.25 * hue], axis=1
        )
        pane = (np.abs((x / 2.25) % 1 - 0.5) < 0.27) & (
            np.abs((z / 3.0) % 1 - 0.55) < 0.24
        )
        color[pane] = np.float32([0.06, 0.075, 0.09])
        color *= (1 + 0.05 * cloud)[:, None]
        top = 8.0 + 3 * hue
    else:
        base = np.float32([0.30, 0.30, 0.29])
        seam = ((x % 2.5) < 0.08) | (np.abs(z - 1.1) < 0.04)
        color = (
            np.maximum(1 + 0.07 * cloud + 0.05 * fine - 0.3 * seam, 0.2)[:, None] * base
        )
        top = np.full_like(x, 2.4)
    return color.astype(np.float32), z < top
