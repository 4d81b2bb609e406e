"""Light on a vehicle: sky, sun, ground, and the mirror image in paint and glass."""

import numpy as np

from dex_jax.procedural._codes import Code
from dex_jax.procedural._paint import Palette
from dex_jax.procedural._scene import Light, grain

_FLOAT = np.float32


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(v: np.ndarray) -> np.ndarray:
    return v * (1 / np.sqrt(_dot(v, v)))


def shade(
    palette: Palette,
    codes: np.ndarray,
    values: np.ndarray,
    eye: np.ndarray,
    light: Light,
    *,
    dirt: float,
    seed: int,
) -> np.ndarray:
    """Lights the hits of one vehicle.

    Args:
        palette: what the codes look like.
        codes: `[n]` what every hit shows.
        values: `[8, n]` x, y, z, normal, s, t in the vehicle's frame.
        eye: `[3]` the camera in the vehicle's frame.
        light: with its direction in the vehicle's frame.
        dirt: how much mud lies on the lower parts, 0 to 1.
        seed: where the mud lies.

    Returns:
        `[3, n]` float32 linear light.
    """
    position, normal = values[:3], _unit(values[3:6])
    view = _unit(eye.astype(_FLOAT)[:, None] - position)
    sun = light.direction.astype(_FLOAT)
    sky, earth = light.sky.astype(_FLOAT), light.ground.astype(_FLOAT)
    facing = _dot(normal, view)
    mirror = normal * (2 * facing) - view
    facing = np.clip(facing, 0.02, 1)
    color = np.stack([channel[codes] for channel in palette.color])
    if dirt > 0.05:
        _soil(color, position, codes, dirt, seed)
    if palette.metal.any():
        color *= 1 + palette.metal[codes] * (_FLOAT(0.55) * facing - _FLOAT(0.35))
    # The road under the vehicle is dark: light from below fades near it.
    low = np.clip(position[2] * _FLOAT(1.6) + _FLOAT(0.25), 0, 1)
    above = _FLOAT(0.5) + _FLOAT(0.5) * normal[2]
    below = (1 - above) * low
    above *= np.where(normal[2] < 0, low, 1)
    toward = np.maximum(_dot(normal, sun), 0) * _FLOAT(light.sun)
    gloss = palette.gloss[codes]
    rim = 1 - facing
    rim *= rim * rim * rim * rim
    # Schlick's approximation of a clear coat, held back at grazing angles.
    coat = gloss * np.minimum(_FLOAT(0.045) + _FLOAT(0.955) * rim, _FLOAT(0.55))
    spark = np.maximum(_dot(mirror, sun), 0)
    for _ in range(6):
        spark *= spark
    spark *= gloss * _FLOAT(0.9 * light.sun)
    open_sky, road, fade = _around(mirror)
    glow = palette.glow[codes] if palette.glow.any() else _FLOAT(0)
    for channel in range(3):
        lit = sky[channel] * above + earth[channel] * below + toward + glow
        # A row of houses and trees stands between the sky and the road.
        band = _FLOAT(0.22) * sky[channel]
        around = band + open_sky * (sky[channel] * fade - band)
        around += road * (_FLOAT(0.6) * earth[channel] - band)
        color[channel] = color[channel] * lit + coat * around + spark
    return color


def _soil(
    color: np.ndarray, position: np.ndarray, codes: np.ndarray, dirt: float, seed: int
) -> None:
    """Lays mud on the lower parts, in place."""
    at = np.flatnonzero(position[2] < 1.15)
    x, y, z = position[:, at]
    cloud = grain(x + seed % 97, z + _FLOAT(0.5) * y, 0.02, 0)
    amount = np.clip(_FLOAT(1.15) - z * _FLOAT(1.33) + _FLOAT(0.35) * cloud, 0, 1)
    clean = np.isin(codes[at], (Code.GLASS, Code.CABIN, Code.LAMP))
    amount *= _FLOAT(min(dirt, 0.85)) * np.where(clean, _FLOAT(0.3), _FLOAT(1))
    for channel, mud in enumerate((0.16, 0.125, 0.085)):
        here = color[channel, at]
        color[channel, at] = here + amount * (_FLOAT(mud) - here)


def _around(mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a mirror sees: share of sky, share of road, brightness of the sky."""
    x, y, z = mirror
    skyline = _FLOAT(0.13) + _FLOAT(0.05) * grain(x + y, x - y, 0.012, 0)
    # Clouds drift over the sky that paint and glass show.
    open_sky = np.clip((z - skyline) * 12, 0, 1)
    open_sky *= _FLOAT(1) + _FLOAT(0.18) * grain(x + 3, y + 3, 0.02, 0)
    road = np.clip(z * -10, 0, 1)
    return open_sky, road, _FLOAT(1.25) - _FLOAT(0.45) * np.maximum(z, 0)
