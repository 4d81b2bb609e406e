"""Light on a vehicle: sky, sun, ground, and the mirror image in paint and glass."""

import numpy as np

from dex_jax.data._procedural_paint import GLASS, LAMP, SUNROOF, TAIL, Palette
from dex_jax.data._procedural_scene import Light, grain

_FLOAT = np.float32


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.sqrt((v * v).sum(axis=0))


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
    facing = (normal * view).sum(axis=0)
    mirror = 2 * facing * normal - view
    facing = np.clip(facing, 0.02, 1)
    color = palette.color[codes].T
    if dirt > 0.05:
        color = _soil(color, position, codes, dirt, seed)
    color = color * (1 + palette.metal[codes] * (0.55 * facing - 0.35))
    up = normal[2]
    low = np.clip(position[2] * _FLOAT(1.6) + _FLOAT(0.25), 0.25, 1)
    toward = np.clip((normal * light.direction.astype(_FLOAT)[:, None]).sum(0), 0, 1)
    sky = light.sky.astype(_FLOAT)[:, None]
    earth = light.ground.astype(_FLOAT)[:, None]
    above = np.where(up < 0, (0.5 + 0.5 * up) * low, 0.5 + 0.5 * up)
    lit = sky * above + earth * (0.5 - 0.5 * up) * low
    lit += _FLOAT(light.sun) * toward
    out = color * lit
    gloss = palette.gloss[codes]
    # Schlick's approximation of a clear coat.
    fresnel = 0.045 + 0.955 * (1 - facing) ** 5
    out += gloss * np.minimum(fresnel, 0.55) * _around(mirror, sky, earth)
    spark = np.clip((mirror * light.direction.astype(_FLOAT)[:, None]).sum(0), 0, 1)
    for _ in range(6):
        spark *= spark
    out += gloss * spark * _FLOAT(0.9 * light.sun)
    out += palette.glow[codes] * palette.color[codes].T
    return _lamps(out, codes, position)


def _soil(
    color: np.ndarray, position: np.ndarray, codes: np.ndarray, dirt: float, seed: int
) -> np.ndarray:
    x, y, z = position
    cloud = grain(x + seed % 97, z + 0.5 * y, 0.02, 0)
    amount = np.clip(1.15 - z / 0.75 + 0.35 * cloud, 0, 1) * min(dirt, 0.85)
    amount *= np.where((codes == GLASS) | (codes == LAMP), 0.3, 1)
    mud = np.array([0.16, 0.125, 0.085], _FLOAT)[:, None]
    return color + amount.astype(_FLOAT) * (mud - color)


def _around(mirror: np.ndarray, sky: np.ndarray, earth: np.ndarray) -> np.ndarray:
    """What stands around: sky above, a row of houses and trees, the road below."""
    x, y, z = mirror
    skyline = 0.13 + 0.05 * grain(x + y, x - y, 0.012, 0)
    open_sky = np.clip((z - skyline) * 12, 0, 1)
    road = np.clip(-z * 10, 0, 1)
    bright = sky * (1.25 - 0.45 * np.clip(z, 0, 1))
    band = sky * _FLOAT(0.22)
    return band + open_sky * (bright - band) + road * (earth * _FLOAT(0.6) - band)


def _lamps(out: np.ndarray, codes: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Gives lamps ribs and windows a view of the seats' dark."""
    rib = ((codes == LAMP) | (codes == TAIL)) & ((position[1] * 18) % 1 < 0.4)
    out[:, rib] *= _FLOAT(0.8)
    inside = ((codes == GLASS) | (codes == SUNROOF)) & ((position[0] / 0.55) % 1 < 0.45)
    out[:, inside] *= _FLOAT(0.9)
    return out
