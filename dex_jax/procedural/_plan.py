"""Who drives where: the identities, cameras and tracklets of the embedded set."""

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dex_jax.procedural._colors import PAINTS
from dex_jax.procedural._scene import CAMERAS, Camera
from dex_jax.procedural._vehicles import (
    BODY_WEIGHTS,
    Vehicle,
    look_alike,
    sample_model,
    sample_vehicle,
)
from dex_jax.procedural._view import Drive, Occluder

VERSION = "1.2.0"
SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class Recipe:
    """How large a set is and how hard: the one place to tune it."""

    train_ids: int
    test_ids: int
    image_size: int
    cameras: int
    """The first so many of the cameras."""
    train_cameras: float
    """Mean number of cameras that see a training identity: its tracklets."""
    gallery_cameras: float
    """Mean number of cameras with gallery images of a test identity."""
    train_frames: float
    """Mean length of a training tracklet; lengths lie in `frames`."""
    gallery_frames: float
    queries: float = 3.16
    """Mean number of queries of an identity, all from one more camera (1 to 8)."""
    frames: tuple[int, int] = (4, 30)
    look_alikes: float = 0.25
    """Share of the identities that come in groups of one model and one paint."""
    group: int = 2
    """Vehicles in such a group."""
    changes: int = 3
    """Small things in which look-alikes differ; fewer is harder."""
    camera_strength: float = 1.0
    """How far cameras differ in light, colour and sharpness: 0 none, 1 full."""
    views: float = 1.0
    """How far the cameras' directions spread: 1 all around, 0 all from one side."""
    turn: float = 0.0
    """Degrees by which vehicles turn, at most, before a camera: a tracklet then
    holds sides of a vehicle that single images of other cameras lack."""
    roads: float = 0.0
    """Share of the drives on any of the roads instead of the camera's own: a network
    cannot tell cameras by what stands behind the vehicles."""
    colorful: float = 0.0
    """How evenly paints are met: 0 as on a street, mostly white and grey, to 1."""
    occluded: float = 0.2
    """Share of the tracklets with something in front during a few frames."""
    blur: float = 1.2
    """Blur of the worst frames, in pixels of a 128-pixel image."""


RECIPES = {
    "tiny": Recipe(
        train_ids=12,
        test_ids=12,
        image_size=40,
        cameras=4,
        train_cameras=2.6,
        gallery_cameras=1.8,
        train_frames=5.0,
        gallery_frames=5.0,
        queries=2.0,
        frames=(4, 7),
        camera_strength=0.5,
        occluded=0.1,
    ),
    "demo": Recipe(
        train_ids=440,
        test_ids=120,
        image_size=64,
        cameras=8,
        train_cameras=4.5,
        gallery_cameras=6.0,
        train_frames=9.0,
        gallery_frames=14.0,
        look_alikes=0.12,
        camera_strength=0.4,
        views=0.42,
        turn=100.0,
        roads=1.0,
        colorful=0.7,
        occluded=0.12,
    ),
    "large": Recipe(
        train_ids=333,
        test_ids=333,
        image_size=128,
        cameras=12,
        train_cameras=5.7,
        gallery_cameras=2.4,
        train_frames=19.5,
        gallery_frames=22.9,
        look_alikes=0.5,
        group=3,
        changes=2,
    ),
}

# Degrees off the heading around which `Recipe.views` draws the cameras together.
_MIDDLE_VIEW = 35.0
# What every camera would be without its own character.
_NEUTRAL = {
    "exposure": 1.0,
    "contrast": 1.0,
    "noise": 0.008,
    "blur": 0.3,
    "motion": 0.4,
}


class Job(NamedTuple):
    """One tracklet to draw: everything that its images depend on."""

    split: str
    identity: int
    camera_id: int
    tracklet: int
    vehicle: Vehicle
    camera: Camera
    drive: Drive
    phases: tuple[float, ...]
    """Where on its way the vehicle is in each frame, -1 to 1."""
    names: tuple[str, ...]
    size: int


def cameras(recipe: Recipe) -> tuple[Camera, ...]:
    """The cameras of a recipe, their character scaled by its `camera_strength`."""
    strength = recipe.camera_strength
    out = []
    for camera in CAMERAS[: recipe.cameras]:
        milder: dict[str, object] = {
            name: float(plain + strength * (getattr(camera, name) - plain))
            for name, plain in _NEUTRAL.items()
        }
        milder["tint"] = tuple(1 + strength * (c - 1) for c in camera.tint)
        away = (camera.azimuth - _MIDDLE_VIEW + 180) % 360 - 180
        milder["azimuth"] = _MIDDLE_VIEW + recipe.views * away
        milder["quality"] = round(90 + strength * (camera.quality - 90))
        out.append(replace(camera, **milder))
    return tuple(out)


def plan(recipe: Recipe, seed: int) -> list[Job]:
    """Lists the tracklets of a set in the order of its images, split by split."""
    eyes = cameras(recipe)
    jobs: list[Job] = []
    vehicles = [
        vehicle
        for part, count in enumerate((recipe.train_ids, recipe.test_ids))
        for vehicle in _fleet(recipe, count, np.random.default_rng([seed, 1, part]))
    ]
    for split in SPLITS:
        ids = range(len(vehicles))
        ids = ids[: recipe.train_ids] if split == "train" else ids[recipe.train_ids :]
        for identity in ids:
            # Query and gallery draw the same cameras and share them out.
            rng = np.random.default_rng([seed, 2, identity])
            seen = _cameras_of(recipe, split, rng)
            for camera in seen:
                number = len(jobs)
                drive_rng = np.random.default_rng([seed, 3, identity, camera])
                phases = _phases(recipe, split, drive_rng)
                names = tuple(
                    f"{split}/{identity:04d}_c{camera:02d}_t{number:04d}_{i:03d}.jpg"
                    for i in range(len(phases))
                )
                drive = _drive(recipe, drive_rng, seed)
                eye = _on_a_road(recipe, eyes[camera], drive_rng)
                eye = _in_a_turn(recipe, eye, drive_rng)
                job = Job(
                    split,
                    identity,
                    camera,
                    number,
                    vehicles[identity],
                    eye,
                    drive,
                    phases,
                    names,
                    recipe.image_size,
                )
                jobs.append(job)
    return jobs


def digest(recipe: Recipe, jobs: list[Job]) -> str:
    """A hash of the version, the recipe and every name; names hold all labels."""
    text = "\n".join([VERSION, repr(recipe), *(n for job in jobs for n in job.names)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _fleet(recipe: Recipe, count: int, rng: np.random.Generator) -> list[Vehicle]:
    """Draws the vehicles of one side, look-alikes among them, in random order."""
    bodies = list(BODY_WEIGHTS)
    weights = np.array(list(BODY_WEIGHTS.values()), float)
    groups = round(recipe.look_alikes * count / recipe.group)
    out: list[Vehicle] = []
    while len(out) < count:
        body = bodies[int(rng.choice(len(bodies), p=weights / weights.sum()))]
        alike = [sample_vehicle(rng, sample_model(rng, body), colorful=recipe.colorful)]
        if groups:
            groups -= 1
            while len(alike) < min(recipe.group, count - len(out)):
                other = look_alike(rng, alike[0], changes=recipe.changes)
                # More than the number plate must tell them apart.
                if all(replace(other, plate=v.plate) != v for v in alike):
                    alike.append(other)
        out += alike
    return [out[i] for i in rng.permutation(count)]


def _cameras_of(recipe: Recipe, split: str, rng: np.random.Generator) -> list[int]:
    order = rng.permutation(recipe.cameras).tolist()
    if split == "train":
        count, most = recipe.train_cameras, recipe.cameras
    else:
        count, most = recipe.gallery_cameras, recipe.cameras - 1
    drawn = 1 + int(rng.binomial(most - 1, (count - 1) / (most - 1)))
    if split == "train":
        return sorted(order[:drawn])
    return order[:1] if split == "query" else sorted(order[1 : drawn + 1])


def _phases(recipe: Recipe, split: str, rng: np.random.Generator) -> tuple[float, ...]:
    """The moments of a tracklet: even steps, a little slower or faster on the way."""
    mean = recipe.train_frames if split == "train" else recipe.gallery_frames
    low, high = recipe.frames
    count = int(np.clip(round(rng.normal(mean, 0.35 * mean)), low, high))
    along = np.linspace(-1, 1, count)
    along = along + rng.uniform(-0.25, 0.25) * (1 - along**2)
    if split == "query":
        kept = int(np.clip(1 + rng.poisson(recipe.queries - 1), 1, min(8, count)))
        along = np.sort(rng.choice(along, size=kept, replace=False))
    return tuple(float(phase) for phase in along)


def _on_a_road(recipe: Recipe, camera: Camera, rng: np.random.Generator) -> Camera:
    """The camera with its own road, or with another one's road and sun."""
    if rng.random() >= recipe.roads:
        return camera
    road, sky = (CAMERAS[i] for i in rng.integers(len(CAMERAS), size=2))
    return replace(
        camera, verge=road.verge, wall=road.wall, crossing=road.crossing, sun=sky.sun
    )


def _in_a_turn(recipe: Recipe, camera: Camera, rng: np.random.Generator) -> Camera:
    """The camera over a bend of its own, to the left or to the right."""
    if not recipe.turn:
        return camera
    bend = recipe.turn * rng.uniform(0.4, 1) * rng.choice((-1, 1))
    return replace(camera, bend=camera.bend + float(bend))


def _drive(recipe: Recipe, rng: np.random.Generator, seed: int) -> Drive:
    strength = recipe.camera_strength
    occluder = None
    if rng.random() < recipe.occluded:
        kind = int(rng.choice(4, p=(0.35, 0.25, 0.25, 0.15)))
        color = rng.uniform(0.25, 0.6) + rng.normal(0, 0.03, 3)
        if kind == 1:
            color = np.array([0.22, 0.33, 0.14]) * rng.uniform(0.7, 1.3)
        elif kind == 2:
            color = np.array(PAINTS[int(rng.integers(len(PAINTS)))][0])
        wide = (0.08, 0.25, 0.2, 0.2)[kind]
        occluder = Occluder(
            kind,
            float(rng.uniform(-0.9, 0.9)),
            float(wide * rng.uniform(0.7, 1.5)),
            (float(color[0]), float(color[1]), float(color[2])),
        )
    return Drive(
        lane=float(rng.normal(0, 0.2)),
        stretch=float(rng.uniform(0.8, 1.1)),
        yaw=float(rng.normal(0, 2.0)),
        exposure=float(np.exp(rng.normal(0, 0.07 * strength))),
        elevation=float(rng.normal(0, 6 * strength)),
        blur=recipe.blur,
        occluder=occluder,
        seed=int(rng.integers(2**31)) + seed,
    )
