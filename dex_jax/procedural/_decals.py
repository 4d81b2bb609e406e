"""Stripes, stickers and other marks on the paint of a body or a load."""

import numpy as np

from dex_jax.procedural._codes import STICKER, Code, scatter
from dex_jax.procedural._vehicles import Sticker, Vehicle


def stripes(v: Vehicle, p: np.ndarray, out: np.ndarray) -> None:
    if v.stripe is None:
        return
    x, y, z, s, t = p
    m, kind = v.model.measures, v.stripe[0]
    side = (t < 1.06) & (s > 0.5) & (s < 5.5)
    if kind == 0:
        mask = side & (np.abs(t - 0.72) < 0.09)
    elif kind == 1:
        mask = side & ((np.abs(t - 0.86) < 0.05) | (np.abs(t - 0.66) < 0.05))
    elif kind == 2:
        mask = (t > 0.24) & (t < 0.6)
    elif kind == 3:
        half = m.width / 2
        band = (np.abs(y) > 0.08 * half) & (np.abs(y) < 0.34 * half)
        mask = band & (t > 2.0)
        if m.height > 2:
            mask = side & (np.abs(((x + 1.4 * z) / 1.2) % 1 - 0.5) < 0.13)
    elif kind == 4:
        start = m.length / 2 - 0.60 * m.length
        lean = x - start + 0.9 * (z - m.belt)
        mask = side & (np.abs(lean) < 0.42) & ((lean / 0.21) % 1 < 0.62)
    else:
        band = side & (np.abs(t - 0.82) < 0.16)
        check = np.floor(x / 0.16) + np.floor((t - 0.66) / 0.16)
        mask = band & (check % 2 == 0)
    out[mask] = Code.STRIPE


def panel_mask(v: Vehicle, p: np.ndarray) -> np.ndarray:
    x, y, _, s, t = p
    m, which = v.model.measures, v.panel[0] if v.panel else 0
    ahead = m.length / 2 - x
    if which == 0:
        return (s > 0.8) & (s < 1.98) & (t > 1.2)
    first = m.pillars[0]
    start = m.hood + 0.05 if which == 1 else first
    end = first if which == 1 else first + 0.95
    side = np.sign(y) == (1 if v.plate % 2 else -1)
    if which == 3:
        start, end = 0.1, m.hood + 0.05
    return side & (t < 1.08) & (t > 0.2) & (ahead > start) & (ahead < end)


def stickers(v: Vehicle, p: np.ndarray, out: np.ndarray) -> None:
    x, y, z, s, t = p
    m = v.model.measures
    half, middle = m.width / 2, m.cargo / 2
    for i, k in enumerate(v.stickers):
        if k.place in ("left", "right", "both"):
            where = (t < 1.06) & (t > 0.15) & (s > 0.8) & (s < 5.4)
            if m.height > 2 and v.model.body == "van":
                where = (t < 2.0) & (s < 5.4) & (s > 0.8)
            if k.place != "both":
                where = where & ((y > 0) == (k.place == "left"))
            tall = (m.belt - m.clearance) / 2
            u = (x - middle - k.at[0] * 0.36 * (m.length - m.cargo)) * np.sign(-y)
            w = z - m.clearance - tall * (1.1 + 0.4 * k.at[1])
        elif k.place == "rear":
            where, tall = s > 5.3, (m.deck_z - m.clearance) / 2
            u, w = y - 0.4 * half * k.at[0], z - m.deck_z + 0.32 * tall
        elif k.place == "hood" and m.hood > 0.4:
            where, tall = (s > 0.8) & (s < 1.98) & (t > 1.5), 0.4
            u, w = y - 0.4 * half * k.at[0], x - m.length / 2 + 0.55 * m.hood
        else:
            where, tall = (s > 2.98) & (s < 4.02) & (t > 2.1), 0.5
            center = m.length / 2 - m.hood - m.screen - 0.7
            u, w = y - 0.2 * half * k.at[0], x - center
        _stamp(k, i, u, w, tall * 0.62 * k.size, where, out)


def cargo(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    x, y, z, nx, ny, nz = p
    m = v.model.measures
    back = -m.length / 2
    deck = m.clearance + 0.55
    plain = int(out[0])
    middle = back + m.cargo / 2
    tall = {"box_truck": 2.25, "tanker": 2.1, "tipper": 1.15}.get(v.model.body, 0.2)
    side = (np.abs(ny) > 0.6) & (np.abs(nz) < 0.7)
    if v.model.body == "box_truck":
        out[side & (np.abs(((x - back) / 0.9) % 1 - 0.5) > 0.485)] = Code.GAP
        doors = (nx < -0.7) & (z > deck + 0.08)
        out[doors & ((np.abs(y) < 0.02) | (np.abs(np.abs(y) - 0.45) < 0.02))] = Code.GAP
    elif v.model.body == "tipper":
        out[side & (((x - back) / 0.7) % 1 < 0.12)] = Code.GAP
    elif v.model.body == "tanker":
        out[((x - back) / 1.55) % 1 < 0.035] = Code.CHROME
    if v.stripe:
        level = (z - deck) / tall
        mask = (
            np.abs(level - 0.5) < 0.07,
            (np.abs(level - 0.62) < 0.04) | (np.abs(level - 0.46) < 0.04),
            level < 0.3,
            np.abs((x + z - back) / m.cargo - 0.5) < 0.12,
            np.abs((x + z - back) / m.cargo - 0.3) < 0.08,
        )[v.stripe[0] % 5]
        out[mask & (np.abs(nz) < 0.7) & (out == plain)] = Code.STRIPE
    for i, k in enumerate(v.stickers):
        if k.place == "rear":
            where, u = nx < -0.6, y - 0.2 * k.at[0]
        else:
            where = (
                side if k.place == "both" else side & ((y > 0) == (k.place == "left"))
            )
            u = (x - middle - 0.22 * m.cargo * k.at[0]) * np.sign(-y)
        w = z - deck - tall * (0.55 + 0.2 * k.at[1])
        _stamp(k, i, u, w, tall * 0.32 * k.size, where, out)
    bar = (nx < -0.6) & (z < deck + 0.02)
    out[bar & (np.abs(y) > 0.36 * m.width)] = Code.TAIL
    return out


def _stamp(
    k: Sticker,
    number: int,
    u: np.ndarray,
    w: np.ndarray,
    size: float,
    where: np.ndarray,
    out: np.ndarray,
) -> None:
    """Paints one sticker; `u` and `w` run across and up from its centre."""
    at = np.flatnonzero(where & (np.abs(u) < 2.6 * size) & (np.abs(w) < size))
    if not at.size:
        return
    a, b = u[at] / size, w[at] / size
    first = STICKER + 2 * number
    r = np.hypot(a, b)
    if k.shape == 0:  # a roundel
        inside, second = r < 1, (r < 0.62) & (r > 0.3)
    elif k.shape == 1:  # a diamond with a bar
        inside, second = np.abs(a) / 1.5 + np.abs(b) < 1, np.abs(b) < 0.18
    elif k.shape == 2:  # a name in block letters
        inside = (np.abs(a) < 2.5) & (np.abs(b) < 0.62)
        cell = scatter(np.floor(a * 2.2) + 64, np.floor(b * 3.2) + 64, k.seed)
        second = (cell < 120) & (np.abs(b) < 0.47)
    elif k.shape == 3:  # a checkerboard
        inside = (np.abs(a) < 1.4) & (np.abs(b) < 0.8)
        second = (np.floor(a * 2.5) + np.floor(b * 2.5)) % 2 == 0
    elif k.shape == 4:  # a slanted sash
        inside = (np.abs(a - 0.6 * b) < 1.6) & (np.abs(b) < 0.8)
        second = np.abs(a - 0.6 * b) % 0.8 < 0.32
    else:  # an arrow
        inside = (np.abs(b) < 0.9 * (1 - np.abs(a - 0.5))) | (
            (np.abs(b) < 0.35) & (a > -2) & (a < 0.6)
        )
        second = np.abs(b) < 0.16
    out[at[inside]] = first
    out[at[inside & second]] = first + 1
