"""A training and its validations: what fails there costs no step and no figure."""

from pathlib import Path
from typing import Any

import pytest

import train
from dex_jax import evaluation, runs
from tests.small_run import figures, small_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*instead of"),
    pytest.mark.usefixtures("quick_programs"),
]


@pytest.fixture
def config(tmp_path: Path) -> Any:
    config = small_config(tmp_path / "set")
    config.optimizer.learning_rate = 1e-3
    return config


def test_a_broken_picture_costs_no_step(config, tmp_path, capfd):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.train(runs.build_job(config, whole))
    capfd.readouterr()
    job = runs.build_job(config, broken)  # of the set as it is
    picture = Path(config.data.root) / job.reid.query.names[0]
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 2])
    failed = "step 4 could not be validated: .*the same command goes on from there"
    with pytest.raises(runs.RunError, match=failed):
        train.train(job)
    assert runs.load_run(broken).step == 4
    # The same command goes on until it meets it again, and the next one is done.
    with pytest.warns(UserWarning, match="files of the data set have changed since"):
        job = runs.build_job(config, broken)
    with pytest.raises(runs.RunError, match="step 8 could not be validated"):
        train.train(job)
    text = capfd.readouterr().out
    assert "resuming after step 4 of 8" in text and "note: step 4 could not" in text
    train.train(runs.build_job(config, broken))
    text = capfd.readouterr().out
    assert (
        "note: step 8 could not" in text
        and "done: all 8 steps were made before." in text
    )
    assert runs.load_run(broken).step == 8
    picture.write_bytes(content)
    with pytest.warns(UserWarning, match="files of the data set have changed since"):
        job = runs.build_job(config, broken)
    train.train(job)
    text = capfd.readouterr().out
    assert (
        "step 8: validation mAP" in text
        and "done: all 8 steps were made before, best" in text
    )
    assert "waiting" not in text and "compiles" not in text
    assert figures(broken, runs.TRAIN) == figures(whole, runs.TRAIN)
    assert figures(broken, runs.VALIDATION) == figures(whole, runs.VALIDATION)[1:]


def test_a_kill_before_a_validation_changes_no_figure(config, tmp_path, monkeypatch):
    """The state is saved first; its validation is made up for by the next start."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train.train(runs.build_job(config, whole))
    made = evaluation.validate

    def kill(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for steps in (4, 8):
        monkeypatch.setattr(evaluation, "validate", kill)
        with pytest.raises(KeyboardInterrupt):
            train.train(runs.build_job(config, killed))
        monkeypatch.setattr(evaluation, "validate", made)
        job = runs.build_job(config, killed)
        job.steps = steps  # as if the next kill came before another step
        train.train(job)
    for name in (runs.TRAIN, runs.VALIDATION):
        assert figures(killed, name) == figures(whole, name)
    best = [runs.load_run(workdir) for workdir in (whole, killed)]
    assert best[0].step == best[1].step
    assert best[0].fingerprint == best[1].fingerprint


def test_without_validation_as_asked(config, tmp_path, capfd):
    config.data.hold_out = 0
    config.run.validate = False
    runs.check_settings(config)
    train.train(runs.build_job(config, tmp_path / "run"))
    text = capfd.readouterr().out
    assert "no validation (config.run.validate=False)" in text
    assert "mAP" not in text
    assert not (tmp_path / "run" / runs.VALIDATION).exists()
    assert not (tmp_path / "run" / runs.BEST).exists()
    assert runs.load_run(tmp_path / "run").step == 12


@pytest.mark.parametrize("remove", [True, False])
def test_it_validates_and_evaluates_by_one_protocol(config, tmp_path, remove):
    config.data.remove_same_camera = remove
    workdir = tmp_path / "run"
    job = runs.build_job(config, workdir)
    assert job.reid.protocol.remove_same_camera is remove
    train.train(job)
    for split in ("validation", "test"):
        source = evaluation.RunSource([workdir], split=split)
        assert source.protocol.remove_same_camera is remove
    source = evaluation.RunSource([workdir], split="validation")
    assert source.protocol == job.reid.protocol
    row = evaluation.rows_for("none").rows[-1]
    found = evaluation.run_row(source.embeddings(None), row, source.protocol)
    assert found.scored is not None
    validated = {
        row["step"]: float(row["mean_ap"]) for row in figures(workdir, runs.VALIDATION)
    }
    step = str(runs.load_run(workdir).step)
    assert found.scored.mean_ap == pytest.approx(validated[step], abs=1e-6)


def test_the_protocol_is_the_one_that_the_run_keeps(config, tmp_path):
    workdir = tmp_path / "run"
    train.train(runs.build_job(config, workdir))
    kept = runs.load_protocols(workdir)
    assert set(kept) == {"validation", "test"}
    text = (workdir / runs.PROTOCOLS).read_text()
    (workdir / runs.PROTOCOLS).write_text(text.replace('"top": 100', '"top": 7'))
    source = evaluation.RunSource([workdir], split="test")
    assert source.protocol.top == 7
    assert any("not scored by the protocol of the data set" in n for n in source.notes)
    # A run of an older version keeps none.
    (workdir / runs.PROTOCOLS).unlink()
    source = evaluation.RunSource([workdir], split="test")
    assert source.protocol == kept["test"]
    assert not any("not scored by" in note for note in source.notes)
