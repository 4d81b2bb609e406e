import dataclasses

import numpy as np
import pytest

from dex_jax.procedural._plan import RECIPES, Recipe, cameras, digest, plan
from dex_jax.procedural._scene import CAMERAS
from dex_jax.procedural._vehicles import BODY_WEIGHTS

DIGESTS = {
    "tiny": "0666162b5e24",
    "demo": "1b9dff04d649",
    "large": "7deceb1cb66b",
}


@pytest.fixture(scope="module")
def large():
    return plan(RECIPES["large"], 0)


def _count(jobs, split):
    return sum(len(job.names) for job in jobs if job.split == split)


def _ids(jobs, split):
    return {job.identity for job in jobs if job.split == split}


def test_the_large_set_has_the_published_proportions(large):
    # CityFlow-ReID: 36,935 / 1,052 / 18,290 images, 1,897 + 798 tracklets.
    assert _count(large, "train") == pytest.approx(36_935, rel=0.05)
    assert _count(large, "query") == pytest.approx(1_052, rel=0.1)
    assert _count(large, "gallery") == pytest.approx(18_290, rel=0.05)
    tracklets = [job.split for job in large]
    assert tracklets.count("train") == pytest.approx(1_897, rel=0.05)
    assert tracklets.count("gallery") == pytest.approx(798, rel=0.05)
    assert len(_ids(large, "train")) == len(_ids(large, "query")) == 333


@pytest.mark.parametrize("size", ["tiny", "demo", "large"])
def test_the_splits_keep_the_rules_of_the_published_sets(size):
    jobs = plan(RECIPES[size], 1)
    assert _ids(jobs, "train").isdisjoint(_ids(jobs, "gallery"))
    assert _ids(jobs, "query") == _ids(jobs, "gallery")
    for split in ("train", "gallery"):
        seen = [(j.identity, j.camera_id) for j in jobs if j.split == split]
        assert len(set(seen)) == len(seen)  # one tracklet per (identity, camera)
    asked = {job.identity: job.camera_id for job in jobs if job.split == "query"}
    assert len(asked) == sum(job.split == "query" for job in jobs)
    for job in jobs:
        if job.split == "gallery":
            assert job.camera_id != asked[job.identity]
        elif job.split == "query":
            assert 1 <= len(job.names) <= 8


def test_a_tracklet_is_one_smooth_drive_of_4_to_30_frames(large):
    for job in large:
        if job.split != "query":
            assert 4 <= len(job.phases) <= 30
            steps = np.diff(job.phases)
            assert (steps > 0).all()
            assert steps.max() < 3.1 * steps.min()
            assert job.phases[0] == pytest.approx(-1)
            assert job.phases[-1] == pytest.approx(1)


def test_all_body_types_and_cameras_are_met(large):
    bodies = {job.vehicle.model.body for job in large}
    assert bodies == set(BODY_WEIGHTS)
    assert len(bodies) >= 10
    assert {job.camera_id for job in large} == set(range(len(CAMERAS)))
    assert RECIPES["demo"].cameras >= 8


def test_look_alikes_share_model_and_paint_and_differ_in_few_things():
    recipe = Recipe(40, 40, 32, 4, 2, 2, 4, 4, look_alikes=0.5, group=2, changes=2)
    vehicles = {job.identity: job.vehicle for job in plan(recipe, 0)}
    train = [vehicles[i] for i in range(40)]
    pairs = [(a, b) for a in train for b in train if a is not b and a.model is b.model]
    assert len(pairs) == 2 * 10  # each pair in both orders
    for a, b in pairs:
        different = {
            field.name
            for field in dataclasses.fields(a)
            if getattr(a, field.name) != getattr(b, field.name)
        }
        assert a.paint == b.paint
        assert 1 <= len(different - {"plate"}) <= 2


def test_no_look_alikes_when_none_are_asked_for():
    recipe = Recipe(20, 20, 32, 4, 2, 2, 4, 4, look_alikes=0.0)
    models = {job.identity: id(job.vehicle.model) for job in plan(recipe, 0)}
    assert len(set(models.values())) == 40


def test_camera_strength_scales_what_cameras_do_to_an_image():
    plain = cameras(dataclasses.replace(RECIPES["large"], camera_strength=0.0))
    assert len({(c.exposure, c.tint, c.noise, c.blur, c.quality) for c in plain}) == 1
    full = cameras(dataclasses.replace(RECIPES["large"], camera_strength=1.0))
    assert [c.exposure for c in full] == pytest.approx([c.exposure for c in CAMERAS])
    assert [c.quality for c in full] == [c.quality for c in CAMERAS]
    # Where a camera stands is not a matter of strength.
    turned = [
        (a.azimuth - b.azimuth) % 360 for a, b in zip(plain, CAMERAS, strict=True)
    ]
    assert turned == pytest.approx([0] * len(CAMERAS))


def test_views_draw_the_cameras_together():
    def spread(views):
        eyes = cameras(dataclasses.replace(RECIPES["large"], views=views))
        return np.ptp([camera.azimuth for camera in eyes])

    assert spread(0.0) == 0
    assert spread(0.5) == pytest.approx(0.5 * spread(1.0))


def test_vehicles_turn_to_both_sides_where_asked_to():
    recipe = dataclasses.replace(RECIPES["demo"], turn=80.0)
    plain = [camera.bend for camera in cameras(recipe)]
    bends = [job.camera.bend - plain[job.camera_id] for job in plan(recipe, 0)]
    assert min(map(abs, bends)) >= 32 and max(map(abs, bends)) <= 80
    assert min(bends) < 0 < max(bends)
    straight = plan(dataclasses.replace(recipe, turn=0.0), 0)
    assert {job.camera.bend for job in straight} == set(plain)


def test_on_any_road_what_stands_behind_does_not_show_the_camera():
    def backgrounds(roads):
        recipe = dataclasses.replace(RECIPES["demo"], roads=roads)
        jobs = [job for job in plan(recipe, 0) if job.camera_id == 0]
        return {(job.camera.verge, job.camera.wall) for job in jobs}

    assert len(backgrounds(0.0)) == 1
    assert len(backgrounds(1.0)) == len({(c.verge, c.wall) for c in CAMERAS})


def test_colorful_traffic_is_less_grey():
    def grey(colorful):
        recipe = Recipe(150, 1, 32, 4, 2, 2, 4, 4, look_alikes=0, colorful=colorful)
        paints = {job.identity: job.vehicle.paint for job in plan(recipe, 0)}
        return sum(np.ptp(paint) < 0.12 for paint in paints.values())

    assert grey(1.0) < grey(0.0)


@pytest.mark.parametrize("size", ["tiny", "demo", "large"])
def test_all_names_and_labels_are_pinned(size):
    recipe = RECIPES[size]
    assert digest(recipe, plan(recipe, 0)) == DIGESTS[size]


def test_another_seed_is_another_set():
    recipe = RECIPES["tiny"]
    a, b, again = plan(recipe, 0), plan(recipe, 1), plan(recipe, 0)
    assert a == again
    assert {job.vehicle.paint for job in a}.isdisjoint(job.vehicle.paint for job in b)
