"""Cameras, daylight and the noise that textures are made of."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Color = tuple[float, float, float]


LANE = 3.5  # width of a lane in metres


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
    crossing: float
    """1 where zebra stripes cross the road."""


# Where each camera stands and what it sees.
_PLACES = """
azimuth height distance sweep bend         sun verge wall crossing
      8    5.5       15    12    0   60,50,0.9     0    0        0
    172    6.5       14    11    0  150,40,0.7     2    1        0
     52    4.2       10     8    0     20,60,1     0    3        0
   -128      5       12     9   18  240,35,0.3     1    2        0
    -40    8.5       14    10  -15  310,55,0.8     2    1        1
     90    3.4        9     6    0   40,45,0.9     2    1        0
    142    9.5       15    11   10  100,30,0.5     0    0        0
    -15    4.6       12     9    0 200,25,0.55     1    2        0
    -95    5.2       11     7   12       0,0,0     0    0        1
    205      4       11     9   -8    330,65,1     2    3        0
     28     11       17    12    0  120,50,0.6     1    1        1
   -160    3.2       10     8    0  80,20,0.75     0    0        0
"""

# What each camera makes of it.
_OPTICS = """
exposure           tint contrast noise blur motion quality
       1          1,1,1        1 0.012 0.35      0      88
    1.05    1.06,1,0.92     1.05 0.015  0.4      1      84
     1.1 1.02,1.01,0.96     1.08  0.01  0.3    1.5      90
    0.95    0.93,1,1.08     0.92 0.022  0.6    0.8      76
       1    1,1.02,0.95        1 0.014  0.4      1      86
    1.08    1.05,1,0.95     1.04 0.012  0.3    2.5      88
    0.88 0.95,0.98,1.06     0.95  0.02 0.55      1      80
    0.72  1.1,0.98,0.86     1.05  0.03  0.5    1.2      74
    0.98    0.97,1,1.03     0.88 0.016  0.7    1.8      82
     1.2       1,1,1.02     1.12  0.01 0.35      1      90
    1.02 0.98,1.03,0.97     0.96 0.018  0.5    0.6      78
    0.85     1.08,1,0.9        1 0.024 0.45    1.4      80
"""


def _read_cameras() -> tuple[Camera, ...]:
    fields: list[dict[str, Any]] = []
    for table in (_PLACES, _OPTICS):
        header, *rows = (line.split() for line in table.strip().splitlines())
        for i, words in enumerate(rows):
            if i == len(fields):
                fields.append({})
            for field, word in zip(header, words, strict=True):
                numbers = [float(w) for w in word.split(",")]
                fields[i][field] = tuple(numbers) if len(numbers) > 1 else numbers[0]
    for known in fields:
        for field in ("quality", "verge", "wall"):
            known[field] = int(known[field])
    return tuple(Camera(**known) for known in fields)


CAMERAS = _read_cameras()


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
