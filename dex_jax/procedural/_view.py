"""Where the camera stands, where the vehicle is, and what the detector cuts out."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dex_jax.procedural._scene import Camera


class Occluder(NamedTuple):
    """Something between the camera and the road."""

    kind: int
    """0 pole, 1 leaves, 2 another vehicle's roof, 3 railing."""
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
    """Of the worst frames, in pixels of a 128-pixel image."""
    occluder: Occluder | None
    seed: int


class View(NamedTuple):
    """The camera and the vehicle in the road's frame."""

    eye: np.ndarray
    """`[3]` where the camera stands."""
    axes: np.ndarray
    """`[3, 3]` its right, down and forward."""
    place: np.ndarray
    """`[3]` the vehicle's middle, on the ground."""
    turn: np.ndarray
    """`[3, 3]` from the vehicle's frame to the road's."""


def look(camera: Camera, drive: Drive, phase: float) -> View:
    """Places the camera, and the vehicle at one moment of its drive."""
    azimuth = np.radians(camera.azimuth)
    x, y = camera.distance * np.cos(azimuth), camera.distance * np.sin(azimuth)
    eye = np.array([x, y, camera.height])
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
    return View(eye, np.stack([right, down, forward]), place, turn)


def project(view: View, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the vehicle's frame to image coordinates `[n, 2]` and depth `[n]`."""
    seen = (points @ view.turn.T + view.place - view.eye) @ view.axes.T
    return seen[:, :2] / seen[:, 2:], seen[:, 2]


def crop(uv: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A detector's box `[2 corners, 2]`: loose, shaky, squeezed by a third at most."""
    low, high = uv.min(axis=0), uv.max(axis=0)
    size = high - low
    low = low - size * rng.uniform(0.02, 0.10, 2)
    high = high + size * rng.uniform(0.02, 0.10, 2)
    size, middle = high - low, (low + high) / 2
    size = np.maximum(size, size.max() / 1.3)
    return np.stack([middle - size / 2, middle + size / 2])
