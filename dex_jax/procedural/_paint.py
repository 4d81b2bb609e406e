"""What a vehicle's surfaces show: windows, lamps, plates, stickers, rims.

Every hit gets a code; a palette turns codes into colours and gloss. Features are
hard-edged masks over local coordinates; the renderer's supersampling smooths them.
"""

from typing import NamedTuple

import numpy as np

from dex_jax.procedural._codes import STICKER, SURFACE, Code
from dex_jax.procedural._colors import Color
from dex_jax.procedural._decals import cargo, panel_mask, stickers, stripes
from dex_jax.procedural._mesh import CARGO, SHELL, WHEEL, Mesh
from dex_jax.procedural._panels import front, rear, side, top
from dex_jax.procedural._vehicles import Vehicle


class Palette(NamedTuple):
    """What each code looks like; arrays over codes."""

    color: np.ndarray
    """`[3, K]` linear light."""
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

    def put(code: int, rgb: Color, shine: float = 0.0) -> None:
        color[code], gloss[code] = rgb, shine

    red, green, blue = vehicle.paint
    dark = (0.35 * red, 0.35 * green, 0.35 * blue)
    put(Code.BODY, vehicle.paint, 1.0)
    put(Code.ROOF, vehicle.roof or vehicle.paint, 1.0)
    put(Code.LOWER, vehicle.lower or vehicle.paint, 0.7)
    clear = 0.27 - 0.20 * vehicle.tint
    put(Code.GLASS, (clear * 0.92, clear, clear * 1.02), 2.4)
    put(Code.CABIN, (0.45 * clear, 0.45 * clear, 0.45 * clear), 2.4)
    put(Code.RUBBER, (0.10, 0.10, 0.105), 0.15)
    put(Code.CHROME, (0.72, 0.73, 0.75), 1.6)
    put(Code.LAMP, (0.86, 0.88, 0.90), 1.5)
    put(Code.TAIL, (0.62, 0.05, 0.06), 0.9)
    put(Code.AMBER, (0.90, 0.48, 0.08), 0.8)
    put(
        Code.PLATE, ((0.92, 0.92, 0.88), (0.93, 0.8, 0.25))[vehicle.plate % 7 == 0], 0.2
    )
    put(Code.INK, (0.12, 0.13, 0.2), 0.1)
    put(Code.GRILLE, (0.06, 0.06, 0.065), 0.2)
    put(Code.STRIPE, vehicle.stripe[1] if vehicle.stripe else dark, 0.6)
    put(Code.PANEL, vehicle.panel[1] if vehicle.panel else vehicle.paint, 0.6)
    put(Code.GAP, dark, 0.1)
    put(Code.TYRE, (0.13, 0.13, 0.135), 0.02)
    put(Code.RIM, vehicle.rim_color, 0.8)
    put(Code.HUB, (0.2, 0.2, 0.21), 0.2)
    put(Code.SUNROOF, (0.06, 0.065, 0.075), 2.0)
    put(Code.ARCH, (0.03, 0.03, 0.032), 0.0)
    put(Code.BED, (0.16, 0.16, 0.17), 0.05)
    put(Code.WHITE_WALL, (0.8, 0.8, 0.76), 0.05)
    for i, sticker in enumerate(vehicle.stickers):
        for j in (0, 1):
            put(STICKER + 2 * i + j, sticker.colors[j], 0.4)
    for i, surface in enumerate(mesh.surfaces):
        put(SURFACE + i, surface.color, surface.gloss)
        glow[SURFACE + i] = 0.5 * (surface.kind == 4)
    metal[[Code.BODY, Code.ROOF]] = vehicle.metal
    return Palette(
        np.square(color).T.astype(np.float32),
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
    at = np.flatnonzero(kind == SHELL)
    if at.size:
        # x, y, z, s, t: a shell is painted by where it is, not by where it faces.
        out[at] = _shell(vehicle, np.stack([values[i][at] for i in (0, 1, 2, 6, 7)]))
    at = np.flatnonzero(kind == CARGO)
    if at.size:
        out[at] = cargo(vehicle, values[:6, at], out[at])
    at = np.flatnonzero(kind == WHEEL)
    if at.size:
        out[at] = _wheel(vehicle, values[6, at], values[7, at], spin)
    return out


def _wheel(v: Vehicle, u: np.ndarray, w: np.ndarray, spin: float) -> np.ndarray:
    r = np.hypot(u, w)
    angle = np.arctan2(w, u) + np.float32(spin)
    out = np.full(len(u), Code.TYRE)
    disc = r < 0.70
    out[disc] = Code.HUB
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
        out[(r > 0.72) & (r < 0.88)] = Code.WHITE_WALL
    out[disc & (spoke | (r > 0.63) | (r < 0.14))] = Code.RIM
    return out


def _shell(v: Vehicle, p: np.ndarray) -> np.ndarray:
    x, _, _, s, t = p
    m = v.model.measures
    out = np.full(len(x), int(Code.BODY))
    if v.roof:
        out[(t > 1.96) & (s > 2.6) & (s < 4.4)] = Code.ROOF
    if v.lower:
        out[t < 0.62] = Code.LOWER
    if m.bed:
        out[(s > 5.05) & (s < 5.33) & (t > 2.15)] = Code.BED
    stripes(v, p, out)
    if v.panel:
        out[panel_mask(v, p)] = Code.PANEL
    stickers(v, p, out)
    if v.model.trim == 1:
        out[t < 0.24] = Code.RUBBER
    tail = m.cargo - m.length / 2
    for paint, where in (
        (side, (s > 0.55) & (s < 5.45) & (t < 2.0)),
        (top, t > 1.95),
        (front, s < 1.0),
        (rear, (s > 4.98) & (x < tail + 0.2)),
    ):
        at = np.flatnonzero(where)
        out[at] = paint(v, p[:, at], out[at])
    return out
