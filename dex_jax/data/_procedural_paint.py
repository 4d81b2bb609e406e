"""What a vehicle's surfaces show: windows, lamps, plates, stickers, rims.

Every hit gets a code; a palette turns codes into colours and gloss. Features are
hard-edged masks over local coordinates; the renderer's supersampling smooths them.
"""

from typing import NamedTuple

import numpy as np

from dex_jax.data._procedural_mesh import CARGO, SHELL, WHEEL, Mesh
from dex_jax.data._procedural_vehicles import Sticker, Vehicle

(
    BODY, ROOF, LOWER, GLASS, RUBBER, CHROME, LAMP, TAIL, AMBER, PLATE, INK, GRILLE,
    STRIPE, PANEL, GAP, TYRE, RIM, HUB, SUNROOF, ARCH, BED, WHITE_WALL,
) = range(22)  # fmt: skip
STICKER = 24  # two codes for each sticker
SURFACE = 40  # one code for each surface of the mesh


class Palette(NamedTuple):
    """What each code looks like; arrays over codes."""

    color: np.ndarray
    """`[K, 3]` linear light."""
    gloss: np.ndarray
    """`[K]` strength of the mirror image."""
    metal: np.ndarray
    """`[K]` how far the paint darkens at grazing angles."""
    glow: np.ndarray
    """`[K]` light of its own."""


def palette(vehicle: Vehicle, mesh: Mesh) -> Palette:
    """Collects the colours of one vehicle."""
    size = SURFACE + len(mesh.surfaces)
    color = np.zeros((size, 3))
    gloss, metal, glow = np.zeros(size), np.zeros(size), np.zeros(size)

    def put(code: int, rgb: tuple[float, float, float], shine: float = 0.0) -> None:
        color[code], gloss[code] = rgb, shine

    dark = tuple(0.35 * c for c in vehicle.paint)
    put(BODY, vehicle.paint, 1.0)
    put(ROOF, vehicle.roof or vehicle.paint, 1.0)
    put(LOWER, vehicle.lower or vehicle.paint, 0.7)
    clear = 0.30 - 0.22 * vehicle.tint
    put(GLASS, (clear * 0.9, clear, clear * 1.02), 2.2)
    put(RUBBER, (0.10, 0.10, 0.105), 0.15)
    put(CHROME, (0.72, 0.73, 0.75), 1.6)
    put(LAMP, (0.86, 0.88, 0.90), 1.5)
    put(TAIL, (0.62, 0.05, 0.06), 0.9)
    put(AMBER, (0.90, 0.48, 0.08), 0.8)
    put(PLATE, ((0.92, 0.92, 0.88), (0.93, 0.8, 0.25))[vehicle.plate % 7 == 0], 0.2)
    put(INK, (0.12, 0.13, 0.2), 0.1)
    put(GRILLE, (0.06, 0.06, 0.065), 0.2)
    put(STRIPE, vehicle.stripe[1] if vehicle.stripe else dark, 0.6)
    put(PANEL, vehicle.panel[1] if vehicle.panel else vehicle.paint, 0.6)
    put(GAP, dark, 0.1)
    put(TYRE, (0.13, 0.13, 0.135), 0.02)
    put(RIM, vehicle.rim_color, 0.8)
    put(HUB, (0.2, 0.2, 0.21), 0.2)
    put(SUNROOF, (0.06, 0.065, 0.075), 2.0)
    put(ARCH, (0.03, 0.03, 0.032), 0.0)
    put(BED, (0.16, 0.16, 0.17), 0.05)
    put(WHITE_WALL, (0.8, 0.8, 0.76), 0.05)
    for i, sticker in enumerate(vehicle.stickers):
        for j in (0, 1):
            put(STICKER + 2 * i + j, sticker.colors[j], 0.4)
    for i, surface in enumerate(mesh.surfaces):
        put(SURFACE + i, surface.color, surface.gloss)
        glow[SURFACE + i] = 0.5 * (surface.kind == 4)
    metal[[BODY, ROOF]] = vehicle.metal
    return Palette(
        np.square(color).astype(np.float32),
        gloss.astype(np.float32),
        metal.astype(np.float32),
        glow.astype(np.float32),
    )


def codes(
    vehicle: Vehicle, mesh: Mesh, values: np.ndarray, part: np.ndarray, spin: float
) -> np.ndarray:
    """Says what every hit shows.

    Args:
        vehicle: the vehicle.
        mesh: its mesh.
        values: `[8, n]` x, y, z, normal, s, t at the hits, in the vehicle's frame.
        part: `[n]` the hit surface.
        spin: how far the wheels have turned, in radians.

    Returns:
        `[n]` int64 numbers into `palette`.
    """
    out = part + SURFACE
    kind = np.array([s.kind for s in mesh.surfaces])[part]
    for which, paint in ((SHELL, _shell), (CARGO, _cargo)):
        at = np.flatnonzero(kind == which)
        if at.size:
            out[at] = paint(vehicle, values[:, at], out[at])
    at = np.flatnonzero(kind == WHEEL)
    if at.size:
        out[at] = _wheel(vehicle, values[6, at], values[7, at], spin)
    return out


def _noise(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """A hash of whole numbers, 0 to 255."""
    h = a.astype(np.uint32) * np.uint32(0x9E3779B1) + b.astype(np.uint32) * np.uint32(
        0x85EBCA77
    )
    h += np.uint32((seed % 65521 * 0xC2B2AE3D) & 0xFFFFFFFF)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3CF5)
    return (h >> np.uint32(24)).astype(np.int64)


def _wheel(v: Vehicle, u: np.ndarray, w: np.ndarray, spin: float) -> np.ndarray:
    r = np.hypot(u, w)
    angle = np.arctan2(w, u) + np.float32(spin)
    out = np.full(len(u), TYRE)
    disc = r < 0.70
    out[disc] = HUB
    turn = angle / np.float32(2 * np.pi)
    if v.rim == 0:  # five broad spokes
        spoke = np.abs((turn * 5) % 1 - 0.5) < 0.22 + 0.1 * (r < 0.35)
    elif v.rim == 1:  # a closed cap with holes
        spoke = ~((np.abs(r - 0.5) < 0.08) & (np.abs((turn * 8) % 1 - 0.5) < 0.25))
    elif v.rim == 2:  # ten thin spokes
        spoke = np.abs((turn * 10) % 1 - 0.5) < 0.2
    elif v.rim == 3:  # bare steel
        spoke = (r < 0.28) | (np.abs(r - 0.62) < 0.04)
    elif v.rim == 4:  # a turbine
        spoke = ((turn * 7 + r * 1.3) % 1) < 0.55
    else:  # white walls
        spoke = r < 0.4
        out[(r > 0.72) & (r < 0.88)] = WHITE_WALL
    out[disc & (spoke | (r > 0.63) | (r < 0.14))] = RIM
    return out


def _shell(v: Vehicle, p: np.ndarray, _: np.ndarray) -> np.ndarray:
    x, y, z, _, _, nz, s, t = p
    m = v.model.measures
    out = np.full(len(x), BODY)
    if v.roof:
        out[(t > 1.96) & (s > 2.6) & (s < 4.4)] = ROOF
    if v.lower:
        out[t < 0.62] = LOWER
    if m.bed:
        out[(s > 5.05) & (s < 5.33) & (t > 2.15)] = BED
    _stripes(v, p, out)
    if v.panel:
        out[_panel_mask(v, p)] = PANEL
    _stickers(v, p, out)
    if v.model.trim == 1:
        out[t < 0.24] = RUBBER
    side = np.flatnonzero((s > 0.55) & (s < 5.45) & (t < 2.0))
    out[side] = _side(v, p[:, side], out[side])
    top = np.flatnonzero(t > 1.95)
    out[top] = _top(v, p[:, top], out[top])
    front = np.flatnonzero(s < 1.0)
    out[front] = _front(v, p[:, front], out[front])
    rear = np.flatnonzero((s > 4.98) & (x < m.length / 2 - m.length + m.cargo + 0.2))
    out[rear] = _rear(v, p[:, rear], out[rear])
    return out


def _side(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    x, _, z, _, _, _, s, t = p
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
    edge = RUBBER if v.model.trim < 2 else CHROME
    if not doors_only or v.model.trim:
        out[frame] = edge if m.height < 2 or body == "bus" else BODY
    broad = 0.05 if m.height < 2 else 0.07
    for place in m.pillars:
        window &= np.abs(ahead - place) > broad
    out[window] = GLASS
    seam = (t < 1.08) & (t > 0.2)
    for i, place in enumerate(m.pillars[:3]):
        gap = seam & (np.abs(ahead - place) < 0.014)
        out[gap] = GAP
        if body != "bus":
            handle = (np.abs(z - m.belt + 0.13) < 0.028) & (
                np.abs(ahead - place + 0.17) < 0.09
            )
            if i < (2 if body != "coupe" else 1):
                out[handle] = CHROME if v.model.trim == 2 else GAP
    out[seam & (np.abs(ahead - m.hood - 0.05) < 0.014)] = GAP
    for axle in m.axles:
        square = (ahead - axle) ** 2 + (z - m.wheel) ** 2
        if v.model.trim == 1 and body in ("suv", "offroad", "pickup"):
            out[(square < (m.wheel * 1.33) ** 2) & (t < 1.0)] = RUBBER
        out[(square < (m.wheel * 1.16) ** 2) & (t < 1.0)] = ARCH
    return out


def _top(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    x, y, z, _, _, _, s, t = p
    m, body = v.model.measures, v.model.body
    large = body == "bus"
    start = 2.0 if large else 2.06
    screen = (s > start) & (s < 2.93) & (t > 2.02)
    out[(s > start - 0.06) & (s < 2.97) & (t > 1.98)] = RUBBER
    out[screen] = GLASS
    if body in ("van", "minibus"):
        half = m.width / 2
        inside = (np.abs(y) > 0.06) & (np.abs(y) < 0.72 * half) & (z > m.belt + 0.1)
        out[(s > 4.05) & (s < 4.95) & inside & (z < m.height - 0.25)] = GLASS
    else:
        out[(s > 4.03) & (s < 4.97) & (t > 2.0)] = RUBBER
        out[(s > 4.09) & (s < 4.92) & (t > 2.04)] = GLASS
    if v.sunroof and m.height < 2:
        front = m.length / 2 - m.hood - m.screen
        hole = (np.abs(y) < 0.36) & (np.abs(front - 0.55 - x) < 0.32)
        out[hole & (s > 3.0) & (s < 4.0)] = SUNROOF
    return out


def _front(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    _, y, z, _, _, _, s, t = p
    m = v.model.measures
    half, low, top = m.width / 2, m.clearance, m.nose_z
    tall = top - low
    ay = np.abs(y)
    bumper = z < low + 0.40 * tall
    if v.model.trim == 1 or v.model.body in ("offroad", "box_truck", "flatbed"):
        out[bumper & (s < 0.95)] = RUBBER
    intake = (ay < 0.62 * half) & (np.abs(z - low - 0.17 * tall) < 0.09 * tall)
    out[intake & (s < 0.7)] = GRILLE
    mid = low + 0.70 * tall
    wide = (0.50, 0.56, 0.38, 0.62)[v.model.grille] * half
    grille = (ay < wide) & (np.abs(z - mid) < 0.15 * tall) & (s < 0.75)
    out[(ay < wide + 0.04) & (np.abs(z - mid) < 0.15 * tall + 0.03) & (s < 0.75)] = (
        CHROME if v.model.trim == 2 or v.model.grille == 1 else GAP
    )
    out[grille] = GRILLE
    bars = (
        (z * 14) % 1 < 0.3,
        (y * 10) % 1 < 0.3,
        ay < 0.03,
        np.abs(z - mid) < 0.02,
    )[v.model.grille]
    out[grille & bars] = CHROME
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
    out[rim] = GAP
    out[lamp] = LAMP
    out[lamp & (ay > 0.9 * half)] = AMBER
    _plate(v, y, z - low - 0.36 * tall, out, s < 0.55)
    return out


def _rear(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    _, y, z, _, _, _, s, t = p
    m = v.model.measures
    half, low = m.width / 2, m.clearance
    top = min(m.deck_z, m.belt + 0.05) - 0.05
    tall = top - low
    ay = np.abs(y)
    if v.model.trim == 1:
        out[(z < low + 0.38 * tall) & (s > 5.1)] = RUBBER
    face = s > 5.3
    lid = (np.abs(z - low - 0.45 * tall) < 0.012) | (np.abs(ay - 0.6 * half) < 0.012)
    out[lid & face & (ay < 0.61 * half) & (z > low + 0.44 * tall)] = GAP
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
    out[lamp & face] = TAIL
    out[lamp & face & (z < mid - 0.06 * tall) & (ay > 0.72 * half)] = (
        LAMP if v.model.lamp % 2 else AMBER
    )
    if not v.spare:
        _plate(v, y, z - low - 0.56 * tall, out, s > 5.45)
    return out


def _plate(
    v: Vehicle, y: np.ndarray, z: np.ndarray, out: np.ndarray, where: np.ndarray
) -> None:
    where = where & (np.abs(y) < 0.27) & (np.abs(z) < 0.075)
    out[where] = PLATE
    letter = np.floor((y + 0.24) / 0.06).astype(np.int64)
    row = np.floor((z + 0.05) / 0.034).astype(np.int64)
    ink = (_noise(letter, row, v.plate) < 150) & (((y + 0.24) / 0.06) % 1 < 0.75)
    out[where & ink & (np.abs(y) < 0.23) & (np.abs(z) < 0.05)] = INK


def _stripes(v: Vehicle, p: np.ndarray, out: np.ndarray) -> None:
    if v.stripe is None:
        return
    x, y, z, _, _, _, s, t = p
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
    out[mask] = STRIPE


def _panel_mask(v: Vehicle, p: np.ndarray) -> np.ndarray:
    x, y, _, _, _, _, s, t = p
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


def _stickers(v: Vehicle, p: np.ndarray, out: np.ndarray) -> None:
    x, y, z, nx, ny, nz, s, t = p
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
        cell = _noise(np.floor(a * 2.2) + 64, np.floor(b * 3.2) + 64, k.seed)
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


def _cargo(v: Vehicle, p: np.ndarray, out: np.ndarray) -> np.ndarray:
    x, y, z, nx, ny, nz, _, _ = p
    m = v.model.measures
    back = -m.length / 2
    deck = m.clearance + 0.55
    plain = int(out[0])
    middle = back + m.cargo / 2
    tall = {"box_truck": 2.25, "tanker": 2.1, "tipper": 1.15}.get(v.model.body, 0.2)
    side = (np.abs(ny) > 0.6) & (np.abs(nz) < 0.7)
    if v.model.body == "box_truck":
        out[side & (np.abs(((x - back) / 0.9) % 1 - 0.5) > 0.485)] = GAP
        doors = (nx < -0.7) & (z > deck + 0.08)
        out[doors & ((np.abs(y) < 0.02) | (np.abs(np.abs(y) - 0.45) < 0.02))] = GAP
    elif v.model.body == "tipper":
        out[side & (((x - back) / 0.7) % 1 < 0.12)] = GAP
    elif v.model.body == "tanker":
        out[((x - back) / 1.55) % 1 < 0.035] = CHROME
    if v.stripe:
        level = (z - deck) / tall
        mask = (
            np.abs(level - 0.5) < 0.07,
            (np.abs(level - 0.62) < 0.04) | (np.abs(level - 0.46) < 0.04),
            level < 0.3,
            np.abs((x + z - back) / m.cargo - 0.5) < 0.12,
            np.abs((x + z - back) / m.cargo - 0.3) < 0.08,
        )[v.stripe[0] % 5]
        out[mask & (np.abs(nz) < 0.7) & (out == plain)] = STRIPE
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
    out[bar & (np.abs(y) > 0.36 * m.width)] = TAIL
    return out
