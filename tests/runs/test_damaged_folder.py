"""Altered files of a run's folder: each is read, or refused by an error of ours."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs import demo
from dex_jax import data, runs
from dex_jax.runs._folder import load_num_classes

OURS = (ValueError, FileNotFoundError, runs.RunError)
VALUES = [
    *(None, True, -1, 0, 10**30, 10**400, 1.5, "", "x", "[b]", "../.."),
    *([], [[]], [1, 2, 3], {}, {"a": 1}, "\ud800"),
]
NAMES = (runs.CONFIG, runs.CLASSES, runs.PROTOCOLS, runs.TRAIN)


def settings() -> Any:
    config: Any = demo.get_config()
    config.data.update(size="tiny", hold_out=3)
    config.data.options = {"in_memory": True, "progress": False}
    return config


@pytest.fixture(scope="module")
def drawn() -> tuple[data.ReidData, dict[str, data.Protocol]]:
    return runs.load_training_data(settings())


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    reid, protocols = drawn
    runs.save_config(folder, settings())
    runs.save_protocols(folder, protocols)
    runs.save_classes(folder, reid.source, reid.train)
    (folder / runs.TRAIN).write_text("step,loss\n" + "1,2.5\n" * 40)
    return folder


def read_all(folder: Path) -> None:
    """Reads each file as a training or an evaluation does."""
    load_num_classes(folder)
    runs.load_protocols(folder)
    runs.Journal(folder, steps=3, start=1, batch_size=1).close()
    config = runs.load_config(folder)
    runs.check_settings(config)
    if config.model != settings().model:
        runs.build_training(config, num_classes=3, steps_per_epoch=1, shapes=True)
    runs.check_config(folder, settings())


def outcome(folder: Path) -> str:
    try:
        read_all(folder)
    except OURS as error:
        str(error).encode()  # a screen takes it
        return type(error).__name__
    return "read"


def places(value: Any, above: tuple = ()) -> Iterator[tuple]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (*above, name)
        yield from places(inner, (*above, name))


def test_the_whole_folder_is_read(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    assert outcome(tmp_path) == "read"


@pytest.mark.parametrize("name", NAMES[:3])
def test_fields_of_any_type(whole: Path, tmp_path: Path, name: str):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = json.loads((whole / name).read_text())
    rng = random.Random(0)
    for place in places(content):
        for value in rng.sample(VALUES, 3):
            altered = json.loads(json.dumps(content))
            holder = altered
            for step in place[:-1]:
                holder = holder[step]
            holder[place[-1]] = value
            (tmp_path / name).write_text(json.dumps(altered))
            outcome(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_any_kind(whole: Path, tmp_path: Path, name: str):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content, rng = (whole / name).read_bytes(), random.Random(1)
    for _ in range(60):
        altered = bytearray(content)
        for _ in range(rng.choice([1, 1, 3])):
            place = rng.randrange(len(altered))
            kind = rng.randrange(3)
            if kind == 0:
                altered[place] = rng.randrange(256)
            elif kind == 1:
                del altered[place : place + rng.randrange(1, 40)]
            else:
                altered[place:place] = rng.choice([b'"', b"{", b"[", b"\xff", b"\0"])
        (tmp_path / name).write_bytes(altered)
        outcome(tmp_path)
    for altered in (b"", b"[" * 100_000, b'{"a":' * 100_000, bytes(1000), b"\xff\xfe"):
        (tmp_path / name).write_bytes(altered)
        outcome(tmp_path)


@pytest.mark.parametrize("name", [*NAMES, ".lock"])
def test_what_is_no_plain_file(whole: Path, tmp_path: Path, name: str):
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)):
        folder = tmp_path / make.__name__.strip("<>")
        shutil.copytree(whole, folder)
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises((*OURS, OSError), match=name), runs.lock(folder):
            read_all(folder)


def test_a_lock_that_is_a_link_cuts_no_file(tmp_path: Path):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "theirs")
    with runs.lock(tmp_path):
        pass
    assert (tmp_path / "theirs").read_text() == "kept"


def test_classes_of_other_images_are_refused_and_changed_files_told(
    drawn, whole: Path, tmp_path: Path
):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    held = drawn[0].train
    with pytest.raises(ValueError, match=r"learned from other data .num_classes was"):
        runs.save_classes(tmp_path, "v1", held.take([0]))
    with pytest.warns(UserWarning, match=r"files .* have changed since.*is 'v1'"):
        runs.save_classes(tmp_path, "v1", held)
    fewer = held.take(range(1, len(held)))
    with pytest.raises(ValueError, match=r"learned from other data .images was"):
        runs.save_classes(tmp_path, "v1", fewer)
