"""A run's folder that an earlier version wrote still evaluates and resumes.

`data/stored_run.tar.xz` was written by version 0.1.0 before its modules moved: a slim
network on the tiny drawn set, stopped after six of twelve steps.
"""

import csv
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import runs
from tests.compilation import QUICK_PROGRAMS

# Comparisons have tolerances for rounding.
pytestmark = pytest.mark.usefixtures("quick_programs")

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).parent / "data" / "stored_run.tar.xz"
# What the same version found: losses of the run that was never stopped, and figures
# of the stored step on the test split.
LOSSES = {7: 14.9009562, 8: 21.2260437}
BASELINE, EXPANDED = 0.10122853517532349, 0.114283986389637


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home of its own: the set is drawn here, not taken from the user's cache."""
    home = str(tmp_path_factory.mktemp("home"))
    return os.environ | QUICK_PROGRAMS | {"DEX_JAX_DATA": home, "XDG_CACHE_HOME": home}


@pytest.fixture
def stored(tmp_path) -> Path:
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "stored"


def flags_of(stored: Path) -> list[str]:
    """The settings that the run was started with, from its own config."""
    config = json.loads((stored / "config.json").read_text())
    flags = ["--config=configs/demo.py", "--config.data.size=tiny"]
    for section, names in {
        "model": ("dim", "parts", "expected_parts", "last_stride"),
        "batch": ("ids_per_batch", "images_per_id"),
        "evaluation": ("every_epochs",),
        "optimizer": ("average",),
        "data": ("hold_out",),
    }.items():
        for name in names:
            value = config[section][name]
            if isinstance(value, list):
                value = tuple(map(tuple, value))
            flags.append(f"--config.{section}.{name}={value}")
    flags.append(f"--config.model.options={config['model']['options']}")
    return [
        *flags,
        f"--config.epochs={config['epochs']}",
        f"--config.image_size={config['image_size']}",
        "--config.run.log_steps=1",
        f"--workdir={stored}",
    ]


def test_it_loads(stored):
    run = runs.load_run(stored)
    assert run.step == 6
    assert run.config.optimizer.average == 0.5
    images = jnp.zeros((2, 32, 32, 3), jnp.float32)
    rows = np.asarray(run.apply(images))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_it_evaluates_to_the_same_figures(stored, environment, tmp_path):
    out = tmp_path / "report"
    words = ["--rerank=dex,dba,diffusion", f"--workdir={stored}", f"--out={out}"]
    subprocess.run(
        [sys.executable, "evaluate.py", *words, "--brief"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    found = json.loads((out / "report.json").read_text())
    figures = [row["mAP"] for row in found["results"]]
    # Another processor rounds otherwise, which moves single images of the 128.
    assert figures == pytest.approx([BASELINE, EXPANDED], abs=5e-3)


def test_it_resumes_where_it_stopped(stored, environment):
    before = (stored / "metrics.csv").read_text().splitlines()
    done = subprocess.run(
        [sys.executable, "train.py", *flags_of(stored)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after step 6 of 12" in done.stdout
    after = (stored / "metrics.csv").read_text().splitlines()
    assert after[:7] == before
    with (stored / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    losses = {int(row["step"]): float(row["loss"]) for row in rows}
    # Step 7 follows from what was restored; rounding has grown by step 8.
    assert losses[7] == pytest.approx(LOSSES[7], rel=1e-3)
    assert losses[8] == pytest.approx(LOSSES[8], rel=3e-2)
