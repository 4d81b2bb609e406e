"""The shapes of vehicles: measures of each body type and the solids made of them."""

from typing import NamedTuple

import numpy as np

from dex_jax.procedural._mesh import (
    CARGO,
    PLAIN,
    SHELL,
    WHEEL,
    Mesh,
    Surface,
    box,
    cylinder,
    loft,
)

RUBBER = Surface(WHEEL, (0.08, 0.08, 0.085), 0.02)
BLACK = Surface(PLAIN, (0.11, 0.11, 0.12), 0.15)
STEEL = Surface(PLAIN, (0.52, 0.53, 0.55), 0.5)
WOOD = Surface(PLAIN, (0.45, 0.33, 0.2), 0.02)
PAINT = Surface(SHELL, (0.0, 0.0, 0.0), 1.0)


class Measures(NamedTuple):
    """Measures of a body in metres; lengths run along x."""

    length: float
    width: float
    height: float
    hood: float
    """From the nose to the foot of the windscreen."""
    screen: float
    """Run of the windscreen."""
    rear: float
    """Run of the rear window."""
    deck: float
    """From the foot of the rear window to the tail."""
    nose_z: float
    cowl_z: float
    belt: float
    """Height of the lower edge of the side windows."""
    deck_z: float
    clearance: float
    wheel: float
    """Radius of a wheel."""
    axles: tuple[float, ...]
    """Places of the axles, from the nose."""
    pillars: tuple[float, ...]
    """Places of the side pillars, from the nose; doors end there too."""
    tumble: float
    """How far the sides lean in at the roof, as a part of the width."""
    bed: float
    """Depth of an open bed behind the cab."""
    cargo: float
    """Length behind a truck's cab."""


_LENGTHS = """
body      length width height hood screen rear deck nose_z cowl_z belt deck_z
sedan       4.65   1.8   1.44  1.2   0.72 0.75 0.58    0.7   0.94 0.93   0.99
coupe        4.4  1.84   1.31 1.38    0.8 1.05 0.35   0.64   0.88 0.88   0.96
hatchback      4  1.74   1.49 0.92   0.72 0.42  0.1   0.72   0.95 0.95   0.98
estate      4.75  1.81   1.48  1.2   0.72 0.48  0.1    0.7   0.94 0.93   0.97
suv          4.6   1.9   1.73 1.08   0.62 0.36 0.08   0.92   1.13  1.1   1.12
offroad      4.2  1.88   1.88 1.15   0.26 0.08 0.06   1.02   1.15 1.15   1.15
minivan     4.75  1.88   1.72 0.75   1.05 0.34 0.08   0.76   1.02 0.99   1.02
pickup      5.25  1.88   1.76 1.22   0.62 0.22 1.62   0.96   1.12 1.12    1.1
van          5.3  2.02   2.32 0.62   0.85  0.1 0.04   0.88   1.22 1.22   1.22
minibus      6.2  2.05   2.55 0.55   0.75 0.12 0.04    0.9   1.25 1.22   1.22
box_truck    7.2   2.2    2.4 0.18   0.42 0.06 0.04   0.98    1.3 1.28   1.28
flatbed      7.2   2.2   2.35 0.18   0.42 0.06 0.04   0.98    1.3 1.28   1.28
tipper       7.4   2.4    2.6 0.12   0.36 0.06 0.04    1.1   1.45 1.42   1.42
tanker       8.6   2.4   2.65 0.12   0.36 0.06 0.04    1.1   1.45 1.42   1.42
bus         10.8   2.5   3.05 0.06   0.24  0.1 0.05   1.15    1.3 1.32   1.32
"""

_DETAILS = """
body      clearance wheel tumble  bed cargo axles         pillars
sedan          0.19  0.32   0.17    0     0 0.88,3.6      2.05,2.95,3.45
coupe          0.15  0.33   0.19    0     0 0.9,3.5       2.25,3.45
hatchback      0.18  0.31   0.15    0     0 0.8,3.3       1.75,2.6,3.35
estate         0.19  0.32   0.15    0     0 0.9,3.65      2.05,2.95,3.8
suv            0.26  0.37   0.13    0     0 0.9,3.65      1.95,2.85,3.75
offroad        0.32   0.4   0.06    0     0 0.75,3.35     1.65,2.6,3.4
minivan        0.19  0.33   0.13    0     0 0.92,3.8      2,2.95,3.95
pickup         0.29  0.39   0.12 0.42     0 0.92,4.1      2.05,2.95
van            0.22  0.35   0.09    0     0 0.95,4.25     2.05
minibus        0.24  0.37   0.07    0     0 1,4.7         1.95,2.95,3.95,4.95
box_truck      0.38  0.44   0.07    0   5.2 1.1,5.4       1.55
flatbed         0.4  0.45   0.07    0   5.2 1.1,5.4       1.55
tipper         0.48   0.5   0.06    0   5.3 1.25,4.7,5.85 1.6
tanker         0.46   0.5   0.06    0   6.5 1.25,5.6,6.8  1.6
bus             0.3  0.48   0.03    0     0 2.5,7.8       1.4,2.7,4,5.3,6.6,7.9,9.2
"""


def _read_measures() -> dict[str, Measures]:
    fields: dict[str, dict] = {}
    for table in (_LENGTHS, _DETAILS):
        header, *rows = (line.split() for line in table.strip().splitlines())
        for body, *words in rows:
            for field, word in zip(header[1:], words, strict=True):
                numbers = tuple(float(w) for w in word.split(","))
                several = field in ("axles", "pillars")
                fields.setdefault(body, {})[field] = numbers if several else numbers[0]
    return {body: Measures(**known) for body, known in fields.items()}


MEASURES = _read_measures()


def cab_length(m: Measures) -> float:
    """Length of the painted shell: all but a truck's cargo."""
    return m.length - m.cargo


def _section(
    m: Measures, x: float, top: float, waist: float, s: float, sink: float = 0.0
) -> np.ndarray:
    """One cross-section `[8, 5]`: sill, side, waist, belt, shoulder, roof edge, roof.

    Where the top lies under the belt (bonnet, boot lid) the upper points lie flat.
    """
    w = m.width / 2 * waist
    belt = min(m.belt, top - 0.06)
    middle = m.clearance + 0.55 * (belt - m.clearance)
    rise = float(np.clip((top - m.belt) / (m.height - m.belt), 0, 1))
    edge = w * (0.88 + (0.12 - m.tumble) * rise) if rise else 0.88 * w
    inner = edge - 0.12 * rise - 0.06
    crown = 0.035 if not sink else 0.0
    shoulder = min(belt + 0.03, top - 0.025)
    y = (0.90 * w, 0.985 * w, w, 0.975 * w, 0.945 * w, edge, inner, 0.0)
    z = (
        m.clearance,
        m.clearance + 0.12,
        middle,
        belt,
        shoulder,
        top - 0.015 - 0.05 * rise,
        top - 0.005 - sink,
        top + crown - sink,
    )
    t = (0.0, 0.2, 0.6, 1.0, 1.1, 2.0, 2.2, 3.0)
    return np.stack([np.full(8, x), y, z, np.full(8, s), t], axis=1)


def shell(m: Measures) -> Mesh:
    """The painted body: bonnet, glasshouse and tail as one skin.

    The coordinate s runs 0 - 1 over the front, to 2 over the bonnet, to 3 over the
    windscreen, to 4 over the roof, to 5 over the rear window, to 6 over the tail.
    """
    front, back = m.length / 2, m.length / 2 - cab_length(m)
    cowl, roof = front - m.hood, front - m.hood - m.screen
    foot = back + m.deck
    roof_end = foot + m.rear
    nose = min(0.1, m.hood * 0.4)
    rows = [
        _section(m, front, m.nose_z - 0.06, 0.85, 0.0),
        _section(m, front, m.nose_z - 0.06, 0.85, 0.5),
        _section(m, front - nose, m.nose_z, 0.96, 0.8),
        _section(
            m, front - nose - 0.45 * m.hood, 0.3 * m.nose_z + 0.7 * m.cowl_z, 0.99, 1.4
        ),
        _section(m, cowl, m.cowl_z, 1.0, 2.0),
        _section(m, roof, m.height - 0.03, 1.0, 3.0),
        _section(m, 0.5 * (roof + roof_end), m.height, 1.0, 3.5),
        _section(m, roof_end, m.height - 0.05, 1.0, 4.0),
    ]
    if m.bed:
        rows += [
            _section(m, foot, m.deck_z + 0.02, 0.99, 5.0),
            _section(m, foot - 0.05, m.deck_z, 0.99, 5.1, m.bed),
            _section(m, back + 0.14, m.deck_z, 0.98, 5.3, m.bed),
            _section(m, back + 0.10, m.deck_z, 0.97, 5.35),
        ]
    else:
        rows += [
            _section(m, foot, m.deck_z, 0.985, 5.0),
            _section(m, back + 0.5 * m.deck + 0.03, m.deck_z - 0.01, 0.97, 5.2),
        ]
    rows += [
        _section(m, back, m.deck_z - 0.08, 0.88, 5.5),
        _section(m, back, m.deck_z - 0.08, 0.88, 6.0),
    ]
    grid = np.stack(rows)
    grid[[0, -1], :, 1] = 0.0  # the ends close on the centre line
    # Bumpers stand out below the lamps.
    grid[:2, :3, 0] += 0.05
    grid[-2:, :3, 0] -= 0.05
    return loft(grid, PAINT, radius=(0.10, 0.05))


def wheels(m: Measures) -> list[Mesh]:
    """Wheels a little proud of the sides; trucks have two rear axles' worth of them."""
    out = []
    for axle in m.axles:
        x = m.length / 2 - axle
        for side in (-1.0, 1.0):
            outer = side * (m.width / 2 * 1.0)
            inner = side * (m.width / 2 - 0.24)
            out.append(
                cylinder(
                    (x, inner, m.wheel),
                    (x, outer, m.wheel),
                    m.wheel,
                    RUBBER,
                    sides=16,
                )
            )
    return out


def underbody(m: Measures) -> Mesh:
    """A dark box between the wheels, so that no light shows under the sills."""
    return box(
        (0.0, 0.0, m.clearance + 0.06),
        (m.length * 0.94, m.width * 0.78, 0.2),
        BLACK,
    )


def mirrors(m: Measures) -> list[Mesh]:
    """A mirror on each side of the windscreen's foot."""
    x = m.length / 2 - m.hood - 0.25 * m.screen - 0.1
    tall = 0.16 if m.height < 2 else 0.38
    z = m.belt + 0.08 if m.height < 2 else m.belt + 0.35
    return [
        box((x, side * (m.width / 2 + 0.07), z), (0.09, 0.17, tall), BLACK)
        for side in (-1.0, 1.0)
    ]


def rounded_box(
    x: tuple[float, float], width: float, z: tuple[float, float], surface: Surface
) -> Mesh:
    """A box from x[0] (rear) to x[1] (front) with soft edges, centred in y."""
    w = width / 2
    y = np.array([w, w, 0.0])
    zz = np.array([z[0], z[1], z[1]])
    rows = [
        np.stack([np.full(3, at), y * k, zz, np.full(3, s), [0.0, 2.0, 3.0]], axis=1)
        for at, k, s in ((x[1], 0, 0), (x[1], 1, 1), (x[0], 1, 2), (x[0], 0, 3))
    ]
    return loft(np.stack(rows), surface, radius=(0.05, 0.05))


def truck_load(body: str, m: Measures, color: tuple[float, float, float]) -> list[Mesh]:
    """What stands behind a truck's cab: box, platform, tipping body or tank."""
    back = -m.length / 2
    front = back + m.cargo
    deck = m.clearance + 0.55
    paint = Surface(CARGO, color, 0.35)
    out = [
        box(
            ((front + back) / 2, 0, deck - 0.15),
            (m.cargo + 0.3, m.width * 0.42, 0.3),
            BLACK,
        ),
        box((back + 0.05, 0, deck - 0.35), (0.12, m.width * 0.9, 0.14), BLACK),
    ]
    for side in (-1.0, 1.0):
        out.append(
            box(
                (front - 1.6, side * m.width * 0.38, deck - 0.3),
                (1.0, 0.35, 0.4),
                BLACK,
            )
        )
    if body == "box_truck":
        out.append(
            rounded_box(
                (back, front - 0.12), m.width * 1.06, (deck, deck + 2.25), paint
            )
        )
    elif body == "flatbed":
        out.append(
            box(((front + back) / 2, 0, deck + 0.06), (m.cargo, m.width, 0.14), paint)
        )
        out.append(
            box((front - 0.1, 0, deck + 0.55), (0.08, m.width * 0.96, 1.0), STEEL)
        )
    elif body == "tipper":
        out += _tipping_body((back, front - 0.2), m.width, deck, paint)
    else:
        radius = m.width * 0.44
        out.append(
            cylinder(
                (back + 0.1, 0, deck + radius + 0.05),
                (front - 0.25, 0, deck + radius + 0.05),
                radius,
                Surface(CARGO, color, 0.9),
                sides=22,
            )
        )
    return out


def _tipping_body(
    x: tuple[float, float], width: float, deck: float, paint: Surface
) -> list[Mesh]:
    middle, run, tall = (x[0] + x[1]) / 2, x[1] - x[0], 1.15
    out = [box((middle, 0, deck + 0.08), (run, width, 0.16), paint)]
    for side in (-1.0, 1.0):
        out.append(
            box(
                (middle, side * (width / 2 - 0.04), deck + tall / 2),
                (run, 0.08, tall),
                paint,
            )
        )
    for at in (x[0] + 0.04, x[1] - 0.04):
        out.append(box((at, 0, deck + tall / 2), (0.08, width, tall), paint))
    return out
