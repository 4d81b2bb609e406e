"""The loop of `train.py`: what it validates, which state it keeps, what it repeats."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from dex_jax import evaluation, runs, training
from tests.small_run import figures, small_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*instead of"),
    pytest.mark.usefixtures("quick_programs"),
]


@pytest.fixture
def config(tmp_path: Path) -> Any:
    return small_config(tmp_path / "set")


def quick_job(config: Any, workdir: Path) -> runs.Job:
    """A job whose step is nothing but arithmetic: weights count the steps."""
    job = runs.build_job(config, workdir)
    decay = config.optimizer.average

    def step(state: training.TrainState, pixels: Any, labels: Any):
        params = jax.tree.map(lambda x: x + 1, state.params)
        average = state.average
        if decay:
            average = jax.tree.map(
                lambda old, new: decay * old + (1 - decay) * new, average, params
            )
        number = state.step + 1
        found = {"loss": jnp.float32(1), "gradient_norm": jnp.float32(1)}
        found["part_loss"] = jnp.ones(2)
        return state._replace(step=number, params=params, average=average), found

    return dataclasses.replace(job, step=step)


class Judge:
    """Stands in for a validation: figures from a list, and what was judged."""

    def __init__(self, patch: pytest.MonkeyPatch, scores: list[float]):
        self.scores = list(scores)
        self.weights: list[Any] = []
        patch.setattr(evaluation, "validate", self.judge)

    def judge(self, apply: Any, data: Any, **sizes: int) -> dict[str, float]:
        del data, sizes
        self.weights.append(jax.device_get(jax.tree.leaves(apply.args)[0]))
        score = self.scores.pop(0)
        return dict.fromkeys(("mean_ap", "cmc_1", "cmc_5", "mean_inp"), score)


def steps_of(workdir: Path) -> list[int]:
    return [int(row["step"]) for row in figures(workdir, runs.VALIDATION)]


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.5, 0.3, 0.4], 2), ([0.3, 0.5, 0.4], 4), ([0.3, 0.4, 0.5], 6),
     ([0.4, 0.4, 0.2], 2), ([0.0, 0.0, 0.0], 2)],
)  # fmt: skip
def test_best_is_the_first_highest_figure(config, tmp_path, monkeypatch, scores, best):
    config.epochs, config.evaluation.every_epochs = 3, 1
    Judge(monkeypatch, scores)
    workdir = tmp_path / "run"
    train.train(quick_job(config, workdir))
    rows = figures(workdir, runs.VALIDATION)
    assert [float(row["mean_ap"]) for row in rows] == scores
    assert steps_of(workdir) == [2, 4, 6]
    assert runs.load_run(workdir, which="best").step == best
    assert runs.load_run(workdir, which="last").step == 6


def test_the_best_of_all_starts_is_kept(config, tmp_path, monkeypatch):
    """A worse figure of a later start does not replace a better one before."""
    config.epochs, config.evaluation.every_epochs = 3, 1
    workdir = tmp_path / "run"
    Judge(monkeypatch, [0.6, 0.5])
    job = quick_job(config, workdir)
    job.steps = 4
    train.train(job)
    Judge(monkeypatch, [0.55])
    train.train(quick_job(config, workdir))
    assert steps_of(workdir) == [2, 4, 6]
    assert runs.load_run(workdir, which="best").step == 2


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [(5, 2, [4, 8, 10]), (3, 2, [4, 6]), (2, 3, [4]), (2, 0, [4]), (4, 2, [4, 8])],
)
def test_the_last_step_is_validated_once(
    config, tmp_path, monkeypatch, epochs, every, expected
):
    config.epochs, config.evaluation.every_epochs = epochs, every
    Judge(monkeypatch, [0.1] * len(expected))
    train.train(quick_job(config, tmp_path / "run"))
    assert steps_of(tmp_path / "run") == expected


def test_a_finished_run_again_changes_nothing(config, tmp_path, monkeypatch, capfd):
    workdir = tmp_path / "run"
    Judge(monkeypatch, [0.2, 0.1])
    train.train(quick_job(config, workdir))

    def content() -> dict[str, tuple[bytes, int]]:
        skipped = {"events", ".lock"}
        return {
            str(path.relative_to(workdir)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(workdir.rglob("*"))
            if path.is_file() and not any(s in str(path) for s in skipped)
        }

    before = content()
    capfd.readouterr()
    Judge(monkeypatch, [])
    train.train(quick_job(config, workdir))
    text = capfd.readouterr().out
    assert "8 steps were made before" in text and "disk" not in text
    after = content()
    assert {n: c for n, (c, _) in after.items()} == {
        n: c for n, (c, _) in before.items()
    }
    checkpoints = [name for name in before if "checkpoints" in name or "best" in name]
    assert checkpoints and all(after[name] == before[name] for name in checkpoints)


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_moving_average_is_what_is_judged_and_kept(
    config, tmp_path, monkeypatch, average
):
    config.optimizer.average = average
    workdir = tmp_path / "run"
    judge = Judge(monkeypatch, [0.1, 0.2])
    job = quick_job(config, workdir)
    first = jax.device_get(jax.tree.leaves(job.state.params)[0])
    train.train(job)
    # Weights grow by one a step; the average of decay 1/2 is behind by 1 - 2^-n.
    for weights, steps in zip(judge.weights, (4, 8), strict=True):
        grown = steps - (1 - 0.5**steps) if average else steps
        np.testing.assert_allclose(weights, first + grown, rtol=1e-5)
    apply: Any = runs.load_run(workdir, which="best").apply
    loaded = jax.device_get(jax.tree.leaves(apply.args)[0])
    np.testing.assert_allclose(loaded, judge.weights[1], rtol=1e-6)
