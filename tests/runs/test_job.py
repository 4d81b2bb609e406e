"""All that a training works with: what is built, said, refused and estimated."""

import csv
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import resnet50_ibn
from dex_jax import models, runs, training
from dex_jax.pipeline import TrainBatch
from tests.small_run import small_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*instead of"),
    pytest.mark.usefixtures("quick_programs"),
]


@pytest.fixture
def config(tmp_path):
    config = small_config(tmp_path / "set")
    config.run.log_steps = 10
    return config


def test_a_job_says_what_it_will_do(config, tmp_path):
    job = runs.build_job(config, tmp_path / "run")
    said = job.facts()
    assert said[0].startswith("cityflow (cityflow-")
    assert "held-identity-3-0): 33 training images" in said[0]
    assert said[1] == "0 of them synthetic (config.data.mixing=real)"
    assert "3 held-back identities: same-camera images kept" in said[2]
    assert f"{jax.device_count()} device(s)" in said[3]
    assert said[4] == "weights start random (no config.model.pretrained)"
    # Three identities, two a batch.
    assert job.batches.steps_per_epoch == 2 and job.steps == 8
    assert runs.load_config(tmp_path / "run").to_dict() == config.to_dict()
    assert [step for step in range(1, 9) if job.validation_due(step)] == [4, 8]
    job.config.evaluation.every_epochs = 0
    assert [step for step in range(1, 9) if job.validation_due(step)] == [8]


def test_batches_follow_the_step_and_end_their_threads(config, tmp_path):
    job = runs.build_job(config, tmp_path / "run")
    images = job.images(0)
    first = list(itertools.islice(images, 4))
    images.close()
    later = job.images(2)
    again = next(later)
    later.close()
    assert [batch.step for batch in first] == [0, 1, 2, 3]
    np.testing.assert_array_equal(again.images, first[2].images)
    np.testing.assert_array_equal(again.indices, job.batches.indices(2))


def test_an_image_that_went_away_is_an_error_of_the_run(config, tmp_path):
    job = runs.build_job(config, tmp_path / "run")
    for path in (Path(config.data.root) / "image_train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(runs.RunError, match="is empty; the checkpoints so far are goo"):
        next(job.images(0))


def test_the_moving_average_describes_where_there_is_one(config, tmp_path):
    config.optimizer.average = 0.5
    job = runs.build_job(config, tmp_path / "run")
    other = jax.tree.map(lambda x: -x, job.state.params)
    images = jnp.ones((1, 32, 32, 3))
    changed = job.state._replace(params=other)
    averaged = np.asarray(job.described_by(job.state)(images))
    np.testing.assert_array_equal(job.described_by(changed)(images), averaged)
    job.config.optimizer.average = 0.0
    assert not np.array_equal(job.described_by(changed)(images), averaged)


def test_a_batch_for_more_devices_is_refused_before_the_data(config, tmp_path):
    config.batch.update(ids_per_batch=3, images_per_id=3)
    config.data.root = "nowhere"
    with pytest.raises(ValueError, match="9 images cannot be split over 8 devices"):
        runs.build_job(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def journal(folder: Path, job: runs.Job) -> runs.Journal:
    return runs.Journal(folder, steps=job.steps, start=0, batch_size=8, active=True)


def test_records_are_written_and_a_lost_training_names_its_images(config, tmp_path):
    job = runs.build_job(config, tmp_path / "run")
    job.config.run.log_steps = 2
    batch = TrainBatch(0, np.zeros(0), np.zeros(0), np.array([3, 5]))
    figures = {
        "loss": jnp.array(2.5),
        "gradient_norm": jnp.array(1.0),
        "part_loss": jnp.array([1.0, 1.5]),
    }
    book = journal(tmp_path / "run", job)
    for step in (1, 2, 8):
        runs.record_step(book, job, step, figures, batch)
    with (tmp_path / "run" / runs.TRAIN).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    # Every second step, and the last one.
    assert [row["step"] for row in rows] == ["2", "8"]
    assert [rows[0][name] for name in ("loss", "part_00", "part_01")] == [
        "2.5",
        "1",
        "1.5",
    ]
    names = f"{job.reid.train.names[3]}, {job.reid.train.names[5]}"
    for name in ("loss", "gradient_norm"):
        lost = figures | {name: jnp.array(jnp.nan)}
        with pytest.raises(runs.RunError, match=f"step 3: .* of this batch: {names}"):
            runs.record_step(book, job, 3, lost, batch)
    book.close()


def test_mistakes_of_the_config_come_before_those_of_the_data(config, tmp_path):
    config.data.root = "nowhere"
    config.model.pretrained = "no.pth"
    with pytest.raises(FileNotFoundError, match=r"pretrained: no file 'no\.pth'"):
        runs.build_job(config, tmp_path / "run")
    config.model.pretrained = ""
    other = config.copy_and_resolve_references()
    other.seed = 5
    runs.save_config(tmp_path / "run", other)
    with pytest.raises(ValueError, match=r"config\.seed: 5 there, 0 here"):
        runs.build_job(config, tmp_path / "run")


def test_a_missing_data_set_names_the_flags_that_mend_it(tmp_path):
    config: Any = resnet50_ibn.get_config()
    config.model.update(name="resnet_slim", trunk_split="none", dim=2)
    config.model.options = {"width": 2}
    root = r"--config\.data\.root=DIR says where it lies"
    without = r"--config\.data\.name=procedural_vehicles"
    with pytest.raises(
        FileNotFoundError,
        match=rf"cityflow lies on your disk.*; {root}; {without} tries",
    ):
        runs.build_job(config, tmp_path / "run")
    config.data.root = str(tmp_path / "nothing")
    # The other set refuses a root, so the hint clears it.
    said = rf"nothing: .*is not here.*; {root}; {without} --config\.data\.root= tries"
    with pytest.raises(FileNotFoundError, match=said):
        runs.build_job(config, tmp_path / "run")
    config.data.update(name="procedural_vehicles", root="", size="tiny")
    config.data.synthetic_root = str(tmp_path / "no_simulation")
    config.data.options = {"in_memory": True, "progress": False}
    with pytest.raises(FileNotFoundError) as error:
        runs.build_job(config, tmp_path / "run")
    assert "no_simulation: " in str(error.value)
    said = "; --config.data.synthetic_root=DIR says where it lies"
    assert str(error.value).endswith(said)
    assert not (tmp_path / "run").exists()


def test_an_estimate_goes_on_without_the_data(config, monkeypatch):
    with_data = runs.estimate(config)
    assert with_data[-1].startswith("one step: ") and "Gflop/s" in with_data[-1]
    cost = training.Cost(operations=3e9, memory=2.0**31, rate=1e9)
    monkeypatch.setattr(training, "cost", lambda *_, **__: cost)
    assert "3 identities: 2 steps an epoch, 8 in all" in with_data
    config.data.root = ""
    config.data.expected_identities = 7
    lines = runs.estimate(config)
    assert "--config.data.root=DIR" in lines[0]
    assert lines[1] == "Going on with 7 identities."
    assert "7 identities: 4 steps an epoch, 16 in all" in lines
    # 16 steps of 3 Gflop at 1 Gflop a second.
    assert lines[-1].startswith("one step: 3 Gflop, 2.0 GiB; at the 1 Gflop/s")
    assert lines[-1].endswith("a run takes about 00:48")


def test_an_estimate_refuses_weights_that_are_not_there_or_do_not_fit(config, tmp_path):
    config.data.root = ""
    config.model.pretrained = "no.pth"
    with pytest.raises(FileNotFoundError, match=r"pretrained: no file 'no\.pth'"):
        runs.estimate(config)
    other = models.backbone("resnet_slim", width=4, last_stride=1, rngs=0)
    config.model.pretrained = str(tmp_path / "other.safetensors")
    models.save_torch_weights(other, config.model.pretrained)
    with pytest.raises(ValueError, match="shape"):
        runs.estimate(config)


def test_what_no_query_can_score_is_refused_before_a_folder_is_made(config, tmp_path):
    config.data.hold_out = 0  # the test side of this set has no identities
    for refuse in (
        lambda: runs.build_job(config, tmp_path / "run"),
        lambda: runs.estimate(config),
    ):
        with pytest.raises(ValueError, match=r"back with --config\.data\.hold_out=N"):
            refuse()
    assert not (tmp_path / "run").exists()


def test_a_farewell_says_what_was_done_now_and_before(config, tmp_path, monkeypatch):
    job = runs.build_job(config, tmp_path / "run")
    book = journal(tmp_path / "run", job)
    after = f"Next: python evaluate.py --workdir {tmp_path / 'run'}"
    say = runs.farewell
    assert say(job, book, 0, 3, 0.5, 61) == (
        "stopped after step 3 of 8; the same command resumes"
    )
    assert say(job, book, 0, 8, runs.NO_BEST, 61) == f"done: 8 steps in 01:01. {after}"
    best = "best validation mAP 50.0"
    assert say(job, book, 8, 8, 0.5, 1) == (
        f"done: all 8 steps were made before, {best}. {after}"
    )
    monkeypatch.setattr(book, "waiting_share", lambda: 0.25)
    assert say(job, book, 6, 8, 0.5, 61) == (
        f"done: the last 2 of 8 steps in 01:01 (25.0% of it waiting for images), "
        f"{best}. {after}"
    )
    book.close()


@pytest.mark.parametrize("best", [None, "0.5", -2, 1.5, float("nan"), [1]])
def test_notes_without_a_best_figure_are_refused(best):
    assert runs.best_of({"best": 0.5}) == 0.5
    with pytest.raises(runs.CheckpointError, match="notes no best mAP, but"):
        runs.best_of({"best": best})
