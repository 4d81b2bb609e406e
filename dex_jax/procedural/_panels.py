"""The four sides of a painted body: windows, doors, lamps, grille, plates."""

import numpy as np

from dex_jax.procedural._codes import Code, scatter
from dex_jax.procedural._vehicles import Vehicle


def side(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Codes the hits of a flank: windows, pillars, doors, wheel arches."""
    x, _, z, s, t = p
    m, body = v.model.measures, v.model.body
    nose = m.length / 2
    ahead = nose - x  # distance from the nose
    top = m.height - (0.10 if m.height < 2 else 0.32 * (m.height - m.belt))
    window = (t > 1.13) & (t < 1.9) & (s > 2.2) & (s < 4.78) & (z < top)
    frame = (t > 1.06) & (t < 1.96) & (s > 2.1) & (s < 4.9) & (z < top + 0.06)
    doors_only = body in ("van", "box_truck", "flatbed", "tipper", "tanker")
    if doors_only:
        window &= ahead < m.pillars[0]
        frame &= ahead < m.pillars[0] + 0.04
    edge = Code.RUBBER if v.model.trim < 2 else Code.CHROME
    if not doors_only or v.model.trim:
        out[frame] = edge if m.height < 2 or body == "bus" else Code.BODY
    broad = 0.05 if m.height < 2 else 0.07
    for place in m.pillars:
        window &= np.abs(ahead - place) > broad
    out[window] = Code.GLASS
    if m.cargo == 0 and v.tint < 0.8:
        up = (z - m.belt) / (m.height - m.belt)
        for place in m.pillars:
            out[window & _seat(ahead - place + 0.3, up)] = Code.CABIN
    seam = (t < 1.08) & (t > 0.2)
    for i, place in enumerate(m.pillars[:3]):
        gap = seam & (np.abs(ahead - place) < 0.014)
        out[gap] = Code.GAP
        if body != "bus":
            handle = (np.abs(z - m.belt + 0.13) < 0.028) & (
                np.abs(ahead - place + 0.17) < 0.09
            )
            if i < (2 if body != "coupe" else 1):
                out[handle] = Code.CHROME if v.model.trim == 2 else Code.GAP
    out[seam & (np.abs(ahead - m.hood - 0.05) < 0.014)] = Code.GAP
    for axle in m.axles:
        square = (ahead - axle) ** 2 + (z - m.wheel) ** 2
        if v.model.trim == 1 and body in ("suv", "offroad", "pickup"):
            out[(square < (m.wheel * 1.33) ** 2) & (t < 1.0)] = Code.RUBBER
        out[(square < (m.wheel * 1.16) ** 2) & (t < 1.0)] = Code.ARCH
    return out


def _seat(across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """A seat and its headrest behind glass; `up` runs from the sill to the roof."""
    away = np.abs(across)
    return ((away < 0.19) & (up < 0.38)) | ((away < 0.11) & (up < 0.62))


def top(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Codes the hits of the upper side: windscreen, rear window, sunroof."""
    x, y, z, s, t = p
    m, body = v.model.measures, v.model.body
    large = body == "bus"
    start = 2.0 if large else 2.06
    screen = (s > start) & (s < 2.93) & (t > 2.02)
    out[(s > start - 0.06) & (s < 2.97) & (t > 1.98)] = Code.RUBBER
    out[screen] = Code.GLASS
    if body in ("van", "minibus"):
        half = m.width / 2
        inside = (np.abs(y) > 0.06) & (np.abs(y) < 0.72 * half) & (z > m.belt + 0.1)
        out[(s > 4.05) & (s < 4.95) & inside & (z < m.height - 0.25)] = Code.GLASS
    else:
        out[(s > 4.03) & (s < 4.97) & (t > 2.0)] = Code.RUBBER
        out[(s > 4.09) & (s < 4.92) & (t > 2.04)] = Code.GLASS
    if v.tint < 0.8:
        up = (z - m.belt) / (m.height - m.belt)
        seats = _seat(np.abs(y) - 0.22 * m.width, up) | (up < 0.16)
        out[seats & (out == Code.GLASS)] = Code.CABIN
    if v.sunroof and m.height < 2:
        front = m.length / 2 - m.hood - m.screen
        hole = (np.abs(y) < 0.36) & (np.abs(front - 0.55 - x) < 0.32)
        out[hole & (s > 3.0) & (s < 4.0)] = Code.SUNROOF
    return out


def front(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Codes the hits of the front: lamps, grille, bumper, plate."""
    _, y, z, s, _ = p
    m = v.model.measures
    half, low, top = m.width / 2, m.clearance, m.nose_z
    tall = top - low
    ay = np.abs(y)
    bumper = z < low + 0.40 * tall
    if v.model.trim == 1 or v.model.body in ("offroad", "box_truck", "flatbed"):
        out[bumper & (s < 0.95)] = Code.RUBBER
    intake = (ay < 0.62 * half) & (np.abs(z - low - 0.17 * tall) < 0.09 * tall)
    out[intake & (s < 0.7)] = Code.GRILLE
    mid = low + 0.70 * tall
    wide = (0.50, 0.56, 0.38, 0.62)[v.model.grille] * half
    grille = (ay < wide) & (np.abs(z - mid) < 0.15 * tall) & (s < 0.75)
    out[(ay < wide + 0.04) & (np.abs(z - mid) < 0.15 * tall + 0.03) & (s < 0.75)] = (
        Code.CHROME if v.model.trim == 2 or v.model.grille == 1 else Code.GAP
    )
    out[grille] = Code.GRILLE
    bars = (
        (z * 14) % 1 < 0.3,
        (y * 10) % 1 < 0.3,
        ay < 0.03,
        np.abs(z - mid) < 0.02,
    )[v.model.grille]
    out[grille & bars] = Code.CHROME
    lamp_z = low + 0.74 * tall
    if v.model.lamp == 1:
        r2 = (ay - 0.76 * half) ** 2 + (z - lamp_z) ** 2
        lamp = r2 < (0.115 + 0.03 * (m.height > 2)) ** 2
        rim = r2 < (0.145 + 0.03 * (m.height > 2)) ** 2
    else:
        reach = (0.60, 0.0, 0.52, 0.72)[v.model.lamp] * half
        thick = (0.12, 0.0, 0.065, 0.2)[v.model.lamp] * tall
        slant = 0.12 * (ay - 0.75 * half) if v.model.lamp == 2 else 0.0
        lamp = (ay > reach) & (np.abs(z - lamp_z - slant) < thick) & (s < 0.86)
        rim = (ay > reach - 0.03) & (np.abs(z - lamp_z - slant) < thick + 0.03)
        rim &= s < 0.9
    out[rim] = Code.GAP
    out[lamp] = Code.LAMP
    out[lamp & (ay > 0.9 * half)] = Code.AMBER
    _plate(v, y, z - low - 0.36 * tall, out, s < 0.55)
    return out


def rear(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Codes the hits of the tail: lamps, lid, bumper, plate."""
    _, y, z, s, _ = p
    m = v.model.measures
    half, low = m.width / 2, m.clearance
    top = min(m.deck_z, m.belt + 0.05) - 0.05
    tall = top - low
    ay = np.abs(y)
    if v.model.trim == 1:
        out[(z < low + 0.38 * tall) & (s > 5.1)] = Code.RUBBER
    face = s > 5.3
    lid = (np.abs(z - low - 0.45 * tall) < 0.012) | (np.abs(ay - 0.6 * half) < 0.012)
    out[lid & face & (ay < 0.61 * half) & (z > low + 0.44 * tall)] = Code.GAP
    mid = low + 0.74 * tall
    high = m.height > 1.6 and not m.bed
    if v.model.tail == 0:
        lamp = (ay > 0.66 * half) & (np.abs(z - mid) < 0.16 * tall)
    elif v.model.tail == 1:
        lamp = (ay > 0.80 * half) & (np.abs(z - mid) < (0.3 if high else 0.24) * tall)
    elif v.model.tail == 2:
        lamp = (np.abs(z - mid) < 0.075 * tall) | (
            (ay > 0.78 * half) & (np.abs(z - mid) < 0.15 * tall)
        )
    else:
        lamp = (ay - 0.78 * half) ** 2 + (z - mid) ** 2 < 0.12**2
    out[lamp & face] = Code.TAIL
    out[lamp & face & (z < mid - 0.06 * tall) & (ay > 0.72 * half)] = (
        Code.LAMP if v.model.lamp % 2 else Code.AMBER
    )
    if not v.spare:
        _plate(v, y, z - low - 0.56 * tall, out, s > 5.45)
    return out


def _plate(
    v: Vehicle, y: np.ndarray, z: np.ndarray, out: np.ndarray, where: np.ndarray
) -> None:
    where = where & (np.abs(y) < 0.27) & (np.abs(z) < 0.075)
    out[where] = Code.PLATE
    letter = np.floor((y + 0.24) / 0.06).astype(np.int64)
    row = np.floor((z + 0.05) / 0.034).astype(np.int64)
    ink = (scatter(letter, row, v.plate) < 150) & (((y + 0.24) / 0.06) % 1 < 0.75)
    out[where & ink & (np.abs(y) < 0.23) & (np.abs(z) < 0.05)] = Code.INK
