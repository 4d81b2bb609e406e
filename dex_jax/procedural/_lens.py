"""What lies between the road and the file: things in front, lens, sensor."""

import numpy as np

from dex_jax.procedural._scene import Camera, Light, grain
from dex_jax.procedural._view import Drive, Occluder

_FLOAT = np.float32


def occlude(
    image: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    thing: Occluder,
    light: Light,
    *,
    seed: int,
) -> np.ndarray:
    """Puts an occluder in front; it stays in place while the vehicle passes.

    Args:
        image: `[3, S, S]` linear light.
        u: `[1, S]` columns, in widths of the vehicle from where it is hidden most.
        v: `[S, 1]` rows, in its heights.
        thing: what stands there.
        light: of the scene.
        seed: of its texture.

    Returns:
        `[3, S, S]` the image behind it.
    """
    pixel = _FLOAT(1.5) * (u[0, 1] - u[0, 0])
    inside, relief = (_pole, _leaves, _roof, _railing)[thing.kind](
        u, v, thing.size, seed
    )
    cover = np.clip(inside / pixel + _FLOAT(0.5), 0, 1)
    base = np.square(np.asarray(thing.color)) * (light.sky + 0.5 * light.sun)
    front = base.astype(_FLOAT)[:, None, None] * np.maximum(relief, _FLOAT(0.2))
    return image + cover * (front - image)


def _pole(
    u: np.ndarray, v: np.ndarray, size: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    across = (u + _FLOAT(0.04 + 0.02 * (seed % 3)) * v) * _FLOAT(2 / size)
    inside = (1 - np.abs(across)) * _FLOAT(0.5 * size)
    round_light = _FLOAT(0.5) * np.sqrt(np.clip(1 - across * across, 0, 1))
    return inside, round_light + _FLOAT(0.65)


def _leaves(
    u: np.ndarray, v: np.ndarray, size: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    side = 1 if seed % 2 else -1
    wide, tall = np.broadcast_arrays(u, v)
    leaf = grain(wide * 2 + seed % 50 + 9, tall * _FLOAT(1.4) + 9, 0.012, 0)
    reach = _FLOAT(2.2 * size) - np.hypot(u - _FLOAT(0.2 * side), v + _FLOAT(0.5))
    relief = grain(wide * 2 + 9, tall * 2 + 9, 0.02, 1)
    inside = _FLOAT(0.12) * leaf - _FLOAT(0.12) + _FLOAT(0.5) * reach
    return inside, _FLOAT(0.8) + _FLOAT(0.35) * relief


def _roof(
    u: np.ndarray, v: np.ndarray, size: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    side = 1 if seed % 2 else -1
    slope = np.minimum(np.abs(u - _FLOAT(0.15 * side)) * _FLOAT(1.4), _FLOAT(1.6))
    slope *= slope
    inside = v - _FLOAT(0.5) + _FLOAT(size) * (1 - _FLOAT(0.35) * slope * slope)
    glass = (inside > 0.16) & (np.abs(u - _FLOAT(0.15 * side)) < 0.62)
    relief = np.where(inside < 0.05, _FLOAT(1.25), _FLOAT(0.85))
    return inside, np.where(glass, _FLOAT(0.25), relief)


def _railing(
    u: np.ndarray, v: np.ndarray, size: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    thick = _FLOAT(0.12 * size)
    lean = v + _FLOAT(0.06 * (seed % 5 - 2)) * u
    bars = np.minimum(np.abs(lean - _FLOAT(0.12)), np.abs(lean - _FLOAT(0.38)))
    posts = np.abs((u + _FLOAT(0.1 * (seed % 7))) % _FLOAT(0.62) - _FLOAT(0.31))
    posts = np.where(lean > 0.08, posts, _FLOAT(1))
    inside = np.maximum(thick - bars, thick - posts)
    return inside, np.where(bars < thick * _FLOAT(0.4), _FLOAT(1.3), _FLOAT(0.9))


def develop(
    image: np.ndarray, camera: Camera, drive: Drive, rng: np.random.Generator
) -> np.ndarray:
    """Lens, sensor and processing: `[3, S, S]` linear to `[S, S, 3]` in [0, 255]."""
    size = image.shape[1]
    gain = np.asarray(camera.tint) * camera.exposure * drive.exposure
    image = image * gain.astype(_FLOAT)[:, None, None]
    # Most frames are sharp, a few are not.
    extra = drive.blur * rng.random() ** 3
    image = _blur(image, float(np.hypot(camera.blur, extra)) * size / 128)
    # A soft shoulder keeps white paint from burning out; then the usual gamma of 2.
    image = np.sqrt(np.maximum(image / (1 + _FLOAT(0.22) * image), 0))
    contrast = _FLOAT(camera.contrast)
    image *= contrast
    image += _FLOAT(camera.noise) * rng.standard_normal(image.shape, _FLOAT)
    image += _FLOAT(0.45) * (1 - contrast)
    return np.clip(image * 255, 0, 255).transpose(1, 2, 0)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma < 0.2:
        return image
    reach = max(1, int(np.ceil(2 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(_FLOAT)
    for axis in (1, 2):
        n = image.shape[axis]
        edge = np.clip(np.arange(-reach, n + reach), 0, n - 1)
        wide = image.take(edge, axis)
        out = np.zeros_like(image)
        for i, tap in enumerate(taps):
            out += tap * (wide[:, i : i + n] if axis == 1 else wide[..., i : i + n])
        image = out
    return image
