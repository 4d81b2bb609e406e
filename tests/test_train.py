"""`train.py` as a user runs it: real processes, killed and resumed."""

import csv
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import demo, resnet50_ibn
from dex_jax import models, runs, training
from tests.compilation import QUICK_PROGRAMS

# On one worker, its processes share the compiled programs and the run that is whole.
pytestmark = pytest.mark.xdist_group("train")

ROOT = Path(__file__).parents[1]
TINY = (
    "--config=configs/demo.py",
    "--config.data.size=tiny",
    "--config.data.hold_out=3",
    "--config.image_size=48",
    "--config.model.options={'width': 4}",
    "--config.model.dim=4",
    "--config.model.last_stride=1",
    "--config.batch.ids_per_batch=4",
    "--config.batch.images_per_id=2",
    "--config.optimizer.learning_rate=1e-3",
    "--config.epochs=4",
    "--config.evaluation.every_epochs=2",
    "--config.run.log_steps=1",
    "--config.run.checkpoint_minutes=0",
)
LIMIT = 300  # seconds; far above what a run takes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's processes keep the drawn set and compiled programs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    keep = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(home / "compiled")
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    return plain | {
        "GLIBC_TUNABLES": "",
        "XLA_FLAGS": "",
        "DEX_JAX_DATA": str(home),
        "JAX_COMPILATION_CACHE_DIR": keep,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        **QUICK_PROGRAMS,
    }


def start(environment: dict[str, str], workdir: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "train.py", *TINY, f"--workdir={workdir}", *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    try:
        text = process.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, text
    return text


def refused(environment: dict[str, str], *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "train.py", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def figures(workdir: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (workdir / name).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    timed = {"images_per_second", "data_wait"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    end = time.monotonic() + LIMIT
    path = workdir / "metrics.csv"
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) > step:
            return
        time.sleep(0.01)
    pytest.fail(f"no step {step} before the end: {process.communicate()[0]}")


@pytest.fixture(scope="module")
def whole(environment: dict[str, str], home: Path) -> tuple[Path, str]:
    """A run that nobody interrupts."""
    workdir = home / "whole"
    return workdir, finish(start(environment, workdir))


def test_a_run_tells_its_story_and_keeps_its_records(whole):
    workdir, text = whole
    assert "validation by" in text
    assert "6 steps" not in text
    assert "images/s" in text and "left" in text
    assert "best validation mAP" in text
    rows = figures(workdir)
    assert [int(r["step"]) for r in rows] == list(range(1, len(rows) + 1))
    assert {"loss", "learning_rate", "gradient_norm", "part_16"} <= set(rows[0])
    assert "of it waiting for images" in text
    with (workdir / "metrics.csv").open(newline="") as handle:
        waits = [float(row["data_wait"]) for row in csv.DictReader(handle)]
    assert all(0 <= wait <= 1 for wait in waits)
    checked = figures(workdir, "validation.csv")
    assert len(checked) == 2
    assert 0 <= float(checked[-1]["mean_ap"]) <= 1
    assert json.loads((workdir / "config.json").read_text())["data"]["size"] == "tiny"
    assert json.loads((workdir / "classes.json").read_text())["num_classes"] == 9


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs a C library with mallopt"
)
def test_kept_memory_is_told_and_changes_nothing(
    whole, environment: dict[str, str], home: Path
):
    line = "freed memory is kept for the next step"
    assert line in whole[1]
    given_back = environment | {"MALLOC_TRIM_THRESHOLD_": "131072"}
    text = finish(start(given_back, home / "given_back"))
    assert line not in text
    assert figures(home / "given_back") == figures(whole[0])


def test_it_starts_from_a_checkpoint_and_says_what_was_loaded(
    environment: dict[str, str], home: Path
):
    given = models.backbone("resnet_slim", width=4, last_stride=1, rngs=7)
    file = home / "slim.safetensors"
    models.save_torch_weights(given, file)
    option = f"--config.model.pretrained={file}"
    text = finish(start(environment, home / "fine", option, "--config.epochs=1"))
    tensors = models.torch_tensors(given)
    line = (
        f"slim.safetensors: {len(tensors)} tensors loaded by the names of torchvision"
    )
    assert f"{line}, 0 missing, 0 left over" in text
    assert "weights start random" not in text
    # What the program builds, before any step.
    config = runs.load_config(home / "fine")
    network, _, _ = runs.build_training(config, num_classes=9, steps_per_epoch=1)
    built = models.torch_tensors(models.merge(*network[:3]))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(built[name], tensor)


def test_killed_at_several_moments_it_ends_as_if_never_stopped(
    whole, environment: dict[str, str], home: Path
):
    workdir = home / "killed"
    # Every step is saved, so some of these kills fall into a save.
    for step in (1, 3, 6):
        process = start(environment, workdir)
        wait_for_step(process, workdir, step)
        process.kill()
        process.communicate()
    text = finish(start(environment, workdir))
    assert "resuming after step" in text
    assert figures(workdir) == figures(whole[0])
    assert figures(workdir, "validation.csv") == figures(whole[0], "validation.csv")


def test_signals_save_and_leave_in_order(
    whole, environment: dict[str, str], home: Path
):
    """Ctrl-C, then the signal of a scheduler, each after the next few steps."""
    workdir, seldom = home / "stopped", "--config.run.checkpoint_minutes=60"
    steps, done = len(figures(whole[0])), 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(environment, workdir, seldom)
        # Its own first step: before that it does not listen yet.
        wait_for_step(process, workdir, done + 2)
        process.send_signal(number)
        text = finish(process)
        assert ("resuming after step" in text) == (done > 0)
        done = len(figures(workdir))
        if done > steps - 2:  # it was done before the signal came
            break
        assert f"stopped after step {done} of {steps}; the same command" in text
    assert "resuming after step" in finish(start(environment, workdir, seldom))
    assert figures(workdir) == figures(whole[0])


@pytest.mark.parametrize("script", ["slurm.sh", "hosts.sh"])
def test_scripts_for_several_hosts_are_whole(script: str):
    path = ROOT / "docs" / "training" / script
    subprocess.run(["bash", "-n", path], check=True)
    done = subprocess.run(
        ["bash", path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "CONFIG WORKDIR" in done.stderr


@pytest.mark.skipif(not shutil.which("setsid"), reason="a script for Linux hosts")
def test_two_processes_train_as_one(whole, environment: dict[str, str], home: Path):
    """Through the script for plain hosts, both of them this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    door = home / "bin" / "ssh"  # as if one had come over: the rest runs here
    door.parent.mkdir()
    door.write_text('#!/bin/bash\nshift\nexec bash -c "$*"\n')
    door.chmod(0o755)
    pair = subprocess.Popen(
        [
            *("bash", "docs/training/hosts.sh", "configs/demo.py", home / "pair"),
            *(*TINY[1:], "--config.epochs=1"),
        ],
        cwd=ROOT,
        env=environment
        | {
            "HOSTS": "127.0.0.1 127.0.0.1",
            "PATH": f"{door.parent}:{environment['PATH']}",
            "PORT": str(port),
            "PYTHON": sys.executable,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        finish(pair)
    except subprocess.TimeoutExpired:
        for path in (home / "pair").glob("pid.*"):  # sessions of their own
            os.kill(int(path.read_text()), signal.SIGKILL)
        raise
    ours, one = figures(home / "pair"), figures(whole[0])
    assert len(ours) == 3  # steps in an epoch
    for a, b in zip(ours, one[:3], strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-3)


def test_a_dry_run_prints_parts_cost_and_makes_nothing(
    environment: dict[str, str], home: Path
):
    text = finish(start(environment, home / "dry", "--dry_run"))
    assert "part  branch  kind" in text
    assert "M parameters" in text and "GiB" in text and "a run takes about" in text
    assert not (home / "dry").exists()


def test_a_dry_run_needs_no_data(monkeypatch: pytest.MonkeyPatch):
    """What it says of the data; the cost of a step is another test's."""
    free = training.Cost(operations=1e9, memory=1e9, rate=1e9)
    monkeypatch.setattr(training, "cost", lambda *_, **__: free)
    config: Any = resnet50_ibn.get_config()
    config.model.update(name="resnet_slim", trunk_split="none")
    config.image_size = 64
    runs.check_settings(config)
    text = "\n".join(runs.estimate(config))
    assert "root: cityflow lies on your disk, say where" in text
    assert "--config.data.root=DIR" in text
    assert "Going on with 426 identities." in text
    assert "54 steps an epoch, 27000 in all" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config=configs/demo.py", "--config.lrr=1"), "has no field 'lrr'"),
        (
            ("--config=configs/demo.py", "--config.learning_rte=1"),
            "did you mean config.optimizer.learning_rate",
        ),
        (("--config=configs/nothing.py",), "configs/nothing.py"),
        (
            ("--config=configs/demo.py", "--config.model.pretrained=no.pth"),
            "config.model.pretrained: no file 'no.pth'",
        ),
    ],
)
def test_mistakes_are_told_before_work_starts(
    environment: dict[str, str], home: Path, flags: tuple[str, ...], message: str
):
    text = refused(environment, *flags, f"--workdir={home / 'mistake'}")
    assert message in text
    assert not (home / "mistake" / "config.json").exists()


def test_the_commands_own_settings_win(environment: dict[str, str]):
    """Both are refused: what the message names is the one that was taken."""
    asked = environment | {"DEX_JAX_TRAIN_FLAGS": "--config.epochs=-1"}
    demo = "--config=configs/demo.py"
    assert "config.epochs: expected" in (text := refused(asked, demo))
    assert "got -1" in text
    assert "got -2" in refused(asked, demo, "--config.epochs=-2")
    broken = environment | {"DEX_JAX_TRAIN_FLAGS": "--config.name='a"}
    assert "DEX_JAX_TRAIN_FLAGS: No closing quotation" in refused(broken, demo)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("epochs", 0, "config.epochs: expected"),
        ("data.name", "nothing", "'procedural_vehicles'"),
        ("image_size", 16, "image_size: 16"),
    ],
)
def test_settings_are_refused_before_work_starts(
    tmp_path: Path, setting: str, value: object, message: str
):
    """By what the program calls; the test above sees it say so."""
    config: Any = demo.get_config()
    config.update_from_flattened_dict({setting: value})
    with pytest.raises(ValueError, match=re.escape(message)):
        runs.check_settings(config)
        runs.build_job(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_names_its_step_and_images(
    environment: dict[str, str], home: Path
):
    # Weights, not a learning rate: those of the compiled step stay as they are.
    given = models.backbone("resnet_slim", width=4, last_stride=1, rngs=7)
    stem: Any = given.units["stem"]
    stem.conv1.kernel.set_value(stem.conv1.kernel[...] * np.nan)
    models.save_torch_weights(given, home / "diverged.safetensors")
    workdir = home / "diverged"
    text = refused(
        environment,
        *TINY,
        f"--config.model.pretrained={home / 'diverged.safetensors'}",
        f"--workdir={workdir}",
    )
    assert re.search(r"error: step \d+: the loss is (nan|inf)", text)
    assert "checkpoint" in text
    assert "Images of this batch: " in text
    assert len(text.split("Images of this batch: ")[1].split(", ")) == 8


def test_another_config_does_not_get_the_folder(whole, environment: dict[str, str]):
    text = refused(environment, *TINY, f"--workdir={whole[0]}", "--config.seed=5")
    assert "belongs to a run of another config" in text
    assert "config.seed: 0 there, 5 here" in text
