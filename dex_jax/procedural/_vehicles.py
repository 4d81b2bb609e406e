"""Vehicles: a model (body and proportions), a paint and the small things."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dex_jax.procedural._colors import PAINTS, TAXI_PAINTS, VIVID, Color
from dex_jax.procedural._shapes import MEASURES, Measures

# How often each body is met.
BODY_WEIGHTS = {
    "sedan": 15,
    "hatchback": 11,
    "suv": 12,
    "estate": 8,
    "coupe": 5,
    "offroad": 5,
    "minivan": 7,
    "pickup": 8,
    "van": 8,
    "minibus": 5,
    "box_truck": 7,
    "flatbed": 4,
    "tipper": 4,
    "tanker": 3,
    "bus": 5,
    "taxi": 6,
}

CARS = ("sedan", "hatchback", "suv", "estate", "coupe", "offroad", "minivan", "taxi")
TRUCKS = ("box_truck", "flatbed", "tipper", "tanker")
STICKER_PLACES = ("left", "right", "both", "hood", "rear", "roof")


@dataclass(frozen=True)
class Model:
    """What a maker decides: all vehicles of a model share it."""

    body: str
    measures: Measures
    lamp: int
    tail: int
    grille: int
    trim: int
    """0 body colour, 1 black plastic, 2 chrome."""


@dataclass(frozen=True)
class Sticker:
    """A mark on the paint."""

    place: str
    at: tuple[float, float]
    """Along and up (or across), as parts of the panel, -1 to 1."""
    size: float
    shape: int
    colors: tuple[Color, Color]
    seed: int


@dataclass(frozen=True)
class Vehicle:
    """One identity."""

    model: Model
    paint: Color
    metal: float
    roof: Color | None
    lower: Color | None
    rim: int
    rim_color: Color
    tint: float
    """How dark the glass is, 0 to 1."""
    plate: int
    rack: int
    """0 none, 1 cross bars, 2 rails, 3 basket."""
    roof_box: Color | None
    ladder: bool
    spoiler: bool
    spare: bool
    """A spare wheel on the tail."""
    bull_bar: bool
    sunroof: bool
    stripe: tuple[int, Color] | None
    stickers: tuple[Sticker, ...]
    panel: tuple[int, Color] | None
    """A replaced panel in another colour."""
    dirt: float
    load: tuple[int, Color]
    """What lies on an open bed, and its colour."""
    cargo_color: Color


def _pick(rng: np.random.Generator, weights: np.ndarray | list) -> int:
    share = np.asarray(weights, float)
    return int(rng.choice(len(share), p=share / share.sum()))


def _vivid(rng: np.random.Generator) -> Color:
    return VIVID[int(rng.integers(len(VIVID)))]


def sample_model(rng: np.random.Generator, body: str) -> Model:
    """Draws a model of the given body type."""
    base = MEASURES["sedan" if body == "taxi" else body]
    scale = {
        name: getattr(base, name) * rng.uniform(1 - spread, 1 + spread)
        for name, spread in (
            ("hood", 0.10),
            ("screen", 0.15),
            ("rear", 0.15),
            ("deck", 0.15),
            ("width", 0.03),
            ("nose_z", 0.05),
            ("wheel", 0.06),
            ("tumble", 0.2),
        )
    }
    longer, taller = rng.uniform(0.95, 1.06), rng.uniform(0.97, 1.05)
    for name in ("length", "cargo"):
        scale[name] = getattr(base, name) * longer
    scale["height"] = base.height * taller
    for name in ("axles", "pillars"):
        scale[name] = tuple(place * longer for place in getattr(base, name))
    return Model(
        body,
        base._replace(**scale),
        lamp=int(rng.integers(4)),
        tail=int(rng.integers(4)),
        grille=int(rng.integers(4)),
        trim=_pick(rng, [5, 3, 2]),
    )


def _draw_sticker(rng: np.random.Generator, vehicle: Vehicle) -> Sticker:
    body = vehicle.model.body
    weights = [3, 3, 4, 2, 3, 1 if body in CARS else 2]
    place = STICKER_PLACES[_pick(rng, weights)]
    first = _vivid(rng)
    while np.abs(np.subtract(first, vehicle.paint)).sum() < 0.6:
        first = _vivid(rng)
    return Sticker(
        place,
        (float(rng.uniform(-0.75, 0.75)), float(rng.uniform(-0.5, 0.5))),
        float(rng.uniform(0.75, 1.3)),
        int(rng.integers(6)),
        (first, _vivid(rng)),
        int(rng.integers(2**16)),
    )


def _draw_stickers(rng: np.random.Generator, vehicle: Vehicle) -> tuple[Sticker, ...]:
    business = vehicle.model.body in ("van", "box_truck", "bus", "minibus", "tanker")
    count = _pick(rng, [2, 4, 3, 2] if business else [9, 4, 2])
    return tuple(_draw_sticker(rng, vehicle) for _ in range(count))


def _draw_rack(rng: np.random.Generator, vehicle: Vehicle) -> int:
    roomy = vehicle.model.body in ("estate", "suv", "offroad", "minivan", "van")
    return _pick(rng, [4, 3, 4, 1] if roomy else [8, 2, 1, 0.5])


def _draw_roof_box(rng: np.random.Generator, vehicle: Vehicle) -> Color | None:
    if vehicle.model.body == "taxi" or rng.random() > 0.1:
        return None
    return ((0.1, 0.1, 0.11), (0.75, 0.76, 0.78), (0.93, 0.93, 0.92))[
        _pick(rng, [5, 2, 2])
    ]


def _draw_roof(rng: np.random.Generator, vehicle: Vehicle) -> Color | None:
    if rng.random() > 0.12:
        return None
    dark = sum(vehicle.paint) < 1.2
    return (0.92, 0.92, 0.90) if dark else (0.10, 0.10, 0.11)


def _draw_lower(rng: np.random.Generator, vehicle: Vehicle) -> Color | None:
    if rng.random() > (0.35 if vehicle.model.body == "bus" else 0.1):
        return None
    return _vivid(rng) if rng.random() < 0.5 else (0.3, 0.31, 0.33)


def _draw_stripe(
    rng: np.random.Generator, vehicle: Vehicle
) -> tuple[int, Color] | None:
    if vehicle.model.body == "taxi" and rng.random() < 0.5:
        return 5, (0.08, 0.08, 0.09)
    often = 0.6 if vehicle.model.body in ("bus", "minibus") else 0.16
    if rng.random() > often:
        return None
    color = _vivid(rng)
    while np.abs(np.subtract(color, vehicle.paint)).sum() < 0.5:
        color = _vivid(rng)
    return _pick(rng, [3, 3, 2, 2, 2]), color


def _draw_panel(rng: np.random.Generator, vehicle: Vehicle) -> tuple[int, Color] | None:
    if rng.random() > 0.07:
        return None
    other = PAINTS[_pick(rng, [w for _, _, w in PAINTS])][0]
    return int(rng.integers(4)), other


def _draw_load(rng: np.random.Generator, vehicle: Vehicle) -> tuple[int, Color]:
    return int(rng.integers(5)), _vivid(rng)


def _draw_rim(rng: np.random.Generator, vehicle: Vehicle) -> int:
    heavy = vehicle.model.body in (*TRUCKS, "bus", "minibus")
    return _pick(rng, [1, 3, 0, 4, 0, 1] if heavy else [5, 3, 4, 2, 3, 0.7])


def _draw_rim_color(rng: np.random.Generator, vehicle: Vehicle) -> Color:
    colors = (
        (0.78, 0.79, 0.8),
        (0.55, 0.56, 0.58),
        (0.16, 0.16, 0.17),
        (0.8, 0.68, 0.4),
    )
    return colors[_pick(rng, [6, 3, 3, 0.6])]


def _flag(share: float, *bodies: str) -> Callable:
    def draw(rng: np.random.Generator, vehicle: Vehicle) -> bool:
        drawn = rng.random() < share
        return drawn and (not bodies or vehicle.model.body in bodies)

    return draw


def _uniform(low: float, high: float) -> Callable:
    return lambda rng, vehicle: float(rng.uniform(low, high))


# The small things, each drawn alone, so that a look-alike differs in some of them.
DETAILS: dict[str, Callable] = {
    "roof": _draw_roof,
    "lower": _draw_lower,
    "rim": _draw_rim,
    "rim_color": _draw_rim_color,
    "tint": _uniform(0.1, 1.0),
    "plate": lambda rng, vehicle: int(rng.integers(2**31)),
    "rack": _draw_rack,
    "roof_box": _draw_roof_box,
    "ladder": _flag(0.25, "van", "minibus", "tanker", "tipper"),
    "spoiler": _flag(0.25, "sedan", "coupe", "hatchback", "estate"),
    "spare": _flag(0.6, "offroad"),
    "bull_bar": _flag(0.4, "offroad", "pickup", "suv"),
    "sunroof": _flag(0.3, *CARS),
    "stripe": _draw_stripe,
    "stickers": _draw_stickers,
    "panel": _draw_panel,
    "dirt": lambda rng, vehicle: float(max(0.0, rng.normal(0.1, 0.3))),
    "load": _draw_load,
}

# Those of them that a camera can tell from most sides, with how hard it is to miss.
_TELLING = {
    "stickers": 4,
    "rack": 2,
    "roof_box": 2,
    "stripe": 3,
    "roof": 2,
    "rim": 1,
    "rim_color": 1,
    "lower": 2,
    "panel": 2,
    "sunroof": 0.5,
    "dirt": 0.5,
}


def _cargo_color(rng: np.random.Generator, body: str, paint: Color) -> Color:
    if body == "tanker":
        return ((0.75, 0.76, 0.78), (0.92, 0.92, 0.9), paint)[int(rng.integers(3))]
    if body == "flatbed":
        return ((0.25, 0.26, 0.28), paint)[int(rng.integers(2))]
    return paint if rng.random() < 0.35 else (0.92, 0.92, 0.91)


def sample_vehicle(
    rng: np.random.Generator, model: Model, *, colorful: float = 0.0
) -> Vehicle:
    """Draws a paint and the small things for a model.

    Paints are met as often as on a street, mostly white and grey; with `colorful` = 1
    all are met equally often.
    """
    if model.body == "taxi":
        paint, metal = TAXI_PAINTS[_pick(rng, [4, 2, 1, 1])], 0.0
    else:
        often = [weight ** (1 - colorful) for _, _, weight in PAINTS]
        paint, metal, _ = PAINTS[_pick(rng, often)]
    red, green, blue = np.clip(paint + rng.normal(0, 0.02, 3), 0.06, 0.96).tolist()
    paint = (red, green, blue)
    blank = Vehicle(
        model,
        paint,
        metal,
        None,
        None,
        0,
        (0, 0, 0),
        0,
        0,
        0,
        None,
        False,
        False,
        False,
        False,
        False,
        None,
        (),
        None,
        0,
        (0, (0, 0, 0)),
        _cargo_color(rng, model.body, paint),
    )
    drawn = {name: draw(rng, blank) for name, draw in DETAILS.items()}
    return dataclasses.replace(blank, **drawn)


def look_alike(rng: np.random.Generator, vehicle: Vehicle, *, changes: int) -> Vehicle:
    """Draws a vehicle of the same model and paint that differs in `changes` things."""
    other = dataclasses.replace(vehicle, plate=int(rng.integers(2**31)))
    names = list(_TELLING)
    order = rng.choice(
        len(names),
        size=len(names),
        replace=False,
        p=np.array(list(_TELLING.values())) / sum(_TELLING.values()),
    )
    for name in [names[i] for i in order[:changes]]:
        before = getattr(vehicle, name)
        for _ in range(200):
            drawn = DETAILS[name](rng, vehicle)
            if drawn != before:
                other = dataclasses.replace(other, **{name: drawn})
                break
    return other
