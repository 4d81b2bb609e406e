"""From a vehicle's description to its mesh."""

from dex_jax.procedural._mesh import (
    GLOW,
    PLAIN,
    Mesh,
    Surface,
    box,
    cylinder,
    join,
)
from dex_jax.procedural._shapes import (
    BLACK,
    RUBBER,
    STEEL,
    WOOD,
    mirrors,
    rounded_box,
    shell,
    truck_load,
    underbody,
    wheels,
)
from dex_jax.procedural._vehicles import TRUCKS, Vehicle


def build(vehicle: Vehicle) -> Mesh:
    """Builds the mesh of a vehicle; its surface 0 is the painted shell."""
    m = vehicle.model.measures
    parts = [shell(m), underbody(m), *wheels(m), *mirrors(m)]
    if vehicle.model.body in TRUCKS:
        parts += truck_load(vehicle.model.body, m, vehicle.cargo_color)
    parts += _roof_things(vehicle) + _ends(vehicle) + _load(vehicle)
    return join(parts)


def _roof_span(vehicle: Vehicle) -> tuple[float, float]:
    """Front and rear end of the flat of the roof."""
    m = vehicle.model.measures
    front = m.length / 2 - m.hood - m.screen
    rear = m.length / 2 - (m.length - m.cargo) + m.deck + m.rear
    return front - 0.1, rear + 0.1


def _roof_things(vehicle: Vehicle) -> list[Mesh]:
    m, body = vehicle.model.measures, vehicle.model.body
    front, rear = _roof_span(vehicle)
    middle, run = (front + rear) / 2, front - rear
    half = m.width / 2 * (1 - m.tumble) - 0.12
    out = []
    if body == "taxi":
        sign = Surface(GLOW, (1.0, 0.85, 0.3), 0.2)
        out.append(box((middle + 0.1, 0, m.height + 0.1), (0.2, 0.55, 0.17), sign))
    rack = vehicle.rack if body not in ("bus", "tanker") else 0
    bars = STEEL if vehicle.plate % 2 else BLACK
    z = m.height + 0.06
    if rack in (2, 3):
        for side in (-1.0, 1.0):
            out.append(box((middle, side * half, z), (run * 0.9, 0.05, 0.07), bars))
    if rack in (1, 3):
        count = 2 if rack == 1 else 5
        for i in range(count):
            x = middle + run * 0.7 * (i / (count - 1) - 0.5)
            out.append(box((x, 0, z + 0.02), (0.07, 2 * half, 0.05), bars))
    if vehicle.roof_box is not None and body not in ("bus", "tipper", "tanker"):
        span = min(run * 0.45, 0.95)
        paint = Surface(PLAIN, vehicle.roof_box, 0.6)
        base = m.height + (0.08 if rack else 0.03)
        out.append(
            rounded_box(
                (middle - span, middle + span), half * 1.1, (base, base + 0.34), paint
            )
        )
    if vehicle.ladder and body in ("van", "minibus"):
        for side in (-0.22, 0.18):
            out.append(box((middle, side, z + 0.05), (run * 0.9, 0.06, 0.07), STEEL))
        for i in range(7):
            x = middle + run * 0.8 * (i / 6 - 0.5)
            out.append(box((x, -0.02, z + 0.05), (0.05, 0.4, 0.05), STEEL))
    if body == "bus":
        unit = Surface(PLAIN, (0.8, 0.8, 0.79), 0.2)
        x = middle + (1.5 if vehicle.plate % 3 else -2.0)
        out.append(
            rounded_box((x - 1.1, x + 1.1), 1.7, (m.height, m.height + 0.25), unit)
        )
    return out


def _ends(vehicle: Vehicle) -> list[Mesh]:
    """Parts mounted on the front and on the tail."""
    m, body = vehicle.model.measures, vehicle.model.body
    front, back = m.length / 2, -m.length / 2
    out = []
    if vehicle.bull_bar:
        for z in (m.clearance + 0.2, m.nose_z - 0.1):
            out.append(box((front + 0.1, 0, z), (0.07, m.width * 0.7, 0.07), STEEL))
        for side in (-0.3, 0.3):
            center = (front + 0.1, side * m.width, (m.clearance + m.nose_z) / 2 + 0.05)
            out.append(box(center, (0.07, 0.07, m.nose_z - m.clearance), STEEL))
    if vehicle.spare:
        z = m.clearance + m.wheel + 0.32
        out.append(
            cylinder(
                (back + 0.0, -0.1, z),
                (back - 0.22, -0.1, z),
                m.wheel * 0.95,
                RUBBER,
                sides=16,
            )
        )
    if vehicle.spoiler:
        paint = Surface(PLAIN, vehicle.paint, 0.8)
        if body in ("sedan", "coupe"):
            size = (0.24, m.width * 0.8, 0.05)
            out.append(box((back + 0.14, 0, m.deck_z + 0.16), size, paint))
            for side in (-0.3, 0.3):
                leg = (back + 0.14, side * m.width, m.deck_z + 0.08)
                out.append(box(leg, (0.12, 0.06, 0.16), paint))
        else:
            x = back + m.deck + m.rear - 0.08
            size = (0.3, m.width * 0.66, 0.06)
            out.append(box((x, 0, m.height + 0.0), size, paint))
    return out


def _load(vehicle: Vehicle) -> list[Mesh]:
    """What lies on an open bed."""
    m, body = vehicle.model.measures, vehicle.model.body
    kind, color = vehicle.load
    back = -m.length / 2
    if body == "pickup":
        start, end, wide = back + 0.2, back + m.deck - 0.1, m.width * 0.7
        floor = m.deck_z - m.bed
        if kind == 0:
            cover = Surface(PLAIN, (0.12, 0.12, 0.13), 0.1)
            size = (end - start, wide * 1.1, 0.06)
            return [box(((start + end) / 2, 0, m.deck_z), size, cover)]
    elif body in ("flatbed", "tipper"):
        start, end, wide = back + 0.15, back + m.cargo - 0.35, m.width * 0.82
        floor = m.clearance + 0.55 + 0.14
    else:
        return []
    run, tall = end - start, 0.75 if body == "flatbed" else 0.55
    if body == "tipper":
        heap = Surface(PLAIN, (0.42, 0.34, 0.25) if kind % 2 else (0.5, 0.5, 0.48), 0.0)
        return [
            rounded_box((start, end), wide * 1.1, (floor, floor + 0.8), heap),
            rounded_box(
                (start + 0.8, end - 0.8), wide * 0.6, (floor, 1.15 + floor), heap
            ),
        ]
    return _goods(kind, color, (start, run, wide), floor, tall)


def _goods(
    kind: int,
    color: tuple[float, float, float],
    bed: tuple[float, float, float],
    floor: float,
    tall: float,
) -> list[Mesh]:
    start, run, wide = bed
    cloth = Surface(PLAIN, color, 0.1)
    if kind == 1:
        return [
            box(
                (start + run * x, wide * y, floor + tall * h / 2),
                (run * 0.26, wide * 0.45, tall * h),
                s,
            )
            for x, y, h, s in (
                (0.18, -0.22, 1.0, WOOD),
                (0.2, 0.25, 0.7, cloth),
                (0.52, 0.2, 1.1, WOOD),
                (0.82, -0.1, 0.8, cloth),
            )
        ]
    if kind == 2:
        return [
            cylinder(
                (start, y * wide, floor + 0.12 + h),
                (start + run, y * wide, floor + 0.12 + h),
                0.12,
                STEEL,
                sides=8,
            )
            for y, h in ((-0.2, 0), (0.0, 0), (0.2, 0), (-0.1, 0.2), (0.1, 0.2))
        ]
    if kind == 3:
        return [
            cylinder(
                (start + run * x, y * wide, floor),
                (start + run * x, y * wide, floor + tall),
                0.27,
                cloth,
                sides=10,
            )
            for x in (0.2, 0.5, 0.8)
            for y in (-0.24, 0.24)
        ]
    if kind == 4:
        return [
            rounded_box((start, start + run), wide, (floor, floor + tall * 1.2), cloth)
        ]
    return []
