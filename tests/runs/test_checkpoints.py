"""Checkpoints: exact, atomic, checked, on any number of devices."""

import contextlib
import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dex_jax import training
from dex_jax.runs._checkpoints import BEST, LAST, CheckpointError, Checkpoints, checksum
from dex_jax.runs._digests import DIGESTS


def state(value: float = 1.0) -> dict:
    return {
        "w": jnp.full((64, 3), float(value)),
        "n": {0: jnp.int32(value), 1: jnp.ones(2)},
    }


def test_last_two_and_best_are_kept(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        for step in (1, 2, 3):
            kept.save(step, state(step), notes={"best": step / 10})
        kept.save_best(2, state(2), notes={"best": 0.2})
        kept.wait()
    names = sorted(p.name for p in (tmp_path / LAST).iterdir() if p.name.isdigit())
    assert names == ["2", "3"]
    with Checkpoints(tmp_path) as kept:
        last = kept.restore(state())
        best = kept.restore(state(), which="best")
    assert last is not None and best is not None
    step, values, notes = last
    assert (step, notes) == (3, {"best": 0.3})
    chex.assert_trees_all_equal(values, state(3))
    assert best[0] == 2
    assert (tmp_path / BEST / "2").is_dir()


def test_nothing_there_is_no_error(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        assert kept.restore(state()) is None


def test_saving_does_not_see_later_changes(tmp_path: Path):
    """The step reuses the old state's memory while the save is still under way."""
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    current = jax.tree.map(jnp.copy, {"w": jnp.zeros((256, 1024))})
    with Checkpoints(tmp_path) as kept:
        kept.save(1, current)
        for _ in range(50):
            current = advance(current)
        jax.block_until_ready(current)
        kept.wait()
        found = kept.restore({"w": jnp.zeros((256, 1024))})
    assert found is not None
    assert float(jnp.abs(found[1]["w"]).max()) == 0


def damage(folder: Path) -> None:
    for path in folder.rglob("d/*"):
        os.truncate(path, 10)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": make_folder,
    "bits flipped": flip,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    with Checkpoints(folder) as kept:
        kept.save(1, state(1), notes={"best": 0.1})
        kept.save(2, state(2), notes={"best": 0.2})
    return folder


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_any_file_is_told_and_the_one_before_is_used(
    two: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
):
    names = [p.relative_to(two) for p in two.rglob("2/**/*") if p.is_file()]
    assert len(names) > 10
    for number, name in enumerate(names):
        folder, told = tmp_path / str(number), []
        shutil.copytree(two, folder)
        DAMAGES[kind](folder / name)
        with Checkpoints(folder, say=told.append) as kept:
            found = kept.restore(state())
        assert found is not None and (found[0], found[2]) == (1, {"best": 0.1}), name
        chex.assert_trees_all_equal(found[1], state(1))
        place = folder / LAST / "2"
        assert len(told) == 1
        assert told[0].startswith(f"checkpoint 2 cannot be read: {place}: ")
    assert capfd.readouterr() == ("", "")


def test_damage_that_no_digest_shows_is_told_too(two: Path, tmp_path: Path):
    """Checkpoints of older versions have none."""
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    for step in "12":
        (tmp_path / LAST / step / DIGESTS).unlink()
        record = tmp_path / LAST / step / "record" / "metadata"
        content = json.loads(record.read_text())
        del content["digests"]
        record.write_text(json.dumps(content))
    told = []
    with Checkpoints(tmp_path, say=told.append) as kept:
        found = kept.restore(state())
        assert found is not None and found[0] == 2
        damage(tmp_path / LAST / "2")
        found = kept.restore(state())
    assert found is not None and found[0] == 1
    assert len(told) == 1 and "checkpoint 2 cannot be read" in told[0]


def test_what_is_damaged_is_set_aside_by_the_next_save(two: Path, tmp_path: Path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    taken = tmp_path / LAST / "2.damaged"
    taken.write_text("somebody's")
    damage(tmp_path / LAST / "2")
    told = []
    with Checkpoints(tmp_path, say=told.append) as kept:
        kept.restore(state())
        assert (tmp_path / LAST / "2").is_dir()
        kept.save(2, state(5))
        kept.save(3, state(3))
        kept.wait()
        again = kept.restore(state())
    line = f"{tmp_path / LAST / '2'} is damaged and now called 2.damaged-2"
    assert told[1:] == [line]
    assert again is not None and again[0] == 3
    names = sorted(p.name for p in (tmp_path / LAST).iterdir())
    assert names == ["2", "2.damaged", "2.damaged-2", "3"]
    assert taken.read_text() == "somebody's"
    assert list((taken.with_name("2.damaged-2")).rglob("d/*"))


def test_a_best_step_that_comes_again_is_kept_or_replaced(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save_best(2, state(2), notes={"best": 0.2})
    told = []
    with Checkpoints(tmp_path, say=told.append) as kept:
        kept.save_best(2, state(2), notes={"best": 0.2})
        assert not told
    damage(tmp_path / BEST / "2")
    with Checkpoints(tmp_path, say=told.append) as kept:
        kept.save_best(2, state(2), notes={"best": 0.2})
        kept.wait()
        found = kept.restore(state(), which="best")
    assert found is not None and found[0] == 2
    assert told == [f"{tmp_path / BEST / '2'} is damaged and now called 2.damaged"]


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_readers_change_nothing(two: Path, tmp_path: Path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    running = tmp_path / LAST / "3.orbax-checkpoint-tmp"
    running.mkdir()
    (running / "part").write_text("of a save")
    damage(tmp_path / LAST / "2")
    before = listing(tmp_path)
    for which in ("last", "best"):
        with Checkpoints(tmp_path, say=lambda _: None) as kept:
            kept.restore(state(), which=which)
    assert listing(tmp_path) == before
    # The one that saves cleans up.
    with Checkpoints(tmp_path) as kept:
        kept.save(4, state(4))
    assert not running.exists()
    with Checkpoints(tmp_path / "nothing") as kept:
        assert kept.restore(state()) is None
    assert not (tmp_path / "nothing").exists()


def test_readers_beside_a_training_that_saves_every_step(tmp_path: Path):
    last, told = 5, []

    def train() -> None:
        with Checkpoints(tmp_path, say=told.append) as kept:
            for step in range(1, last + 1):
                kept.save(step, state(step))
                kept.save_best(step, state(step), notes={"best": step})

    def read(which: str) -> int:
        with Checkpoints(tmp_path, say=told.append) as kept:
            found = kept.restore(state(), which=which)
        if found is None:
            return 0
        chex.assert_trees_all_equal(found[1], state(found[0]))
        return found[0]

    with ThreadPoolExecutor(1) as pool:
        training_done = pool.submit(train)
        while not training_done.done():
            read("best")
            read("last")
        training_done.result()
    assert (read("best"), read("last")) == (last, last)
    assert not told


def test_only_a_full_disk_is_called_full(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save(2, state(2))
    with (
        Checkpoints(tmp_path) as kept,
        pytest.raises(CheckpointError, match="checkpoint 2 could not be") as error,
    ):
        kept.save(2, state(2))
    assert str(tmp_path / LAST) in str(error.value)
    assert "disk full" not in str(error.value)


@pytest.mark.parametrize(
    ("cause", "free", "full"),
    [
        (OSError(errno.ENOSPC, "no space"), 2**40, True),
        (OSError(errno.EDQUOT, "quota"), 2**40, True),
        (ValueError("write failed: No space left on device"), 2**40, True),
        (OSError(errno.EACCES, "not allowed"), 2**40, False),
        (OSError(errno.EACCES, "not allowed"), 1000, True),
    ],
)
def test_a_disk_is_full_by_its_error_or_by_its_figures(
    tmp_path: Path, monkeypatch, cause: Exception, free: int, full: bool
):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a save failed") from cause

    monkeypatch.setattr(ocp.CheckpointManager, "save", refuse)
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="a save failed") as error:
        Checkpoints(tmp_path).save(2, state(2))
    assert ("Is the disk full?" in str(error.value)) is full


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Stands for a full disk: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_the_last_good_checkpoint(tmp_path: Path):
    noise = np.random.default_rng(0).standard_normal((256, 1024), np.float32)
    like = {"w": jnp.zeros((256, 1024))}
    kept = Checkpoints(tmp_path)
    kept.save(1, {"w": jnp.asarray(noise)})
    kept.wait()
    full = pytest.raises(CheckpointError, match=r"checkpoint 2 .*Is the disk full")
    with largest_file(2**16), full:
        kept.save(2, {"w": jnp.asarray(2 * noise)})
        kept.wait()
    del kept  # the process ends; the next one finds what is on disk
    with Checkpoints(tmp_path) as again:
        found = again.restore(like)
        assert found is not None
        assert found[0] == 1
        np.testing.assert_array_equal(found[1]["w"], noise)
        again.save(2, {"w": jnp.asarray(2 * noise)})
        again.wait()
        later = again.restore(like)
    assert later is not None
    assert later[0] == 2


def test_none_that_can_be_read_is_an_error_not_a_fresh_start(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save(1, state(1))
        kept.wait()
    damage(tmp_path / LAST / "1")
    with (
        Checkpoints(tmp_path, say=lambda _: None) as kept,
        pytest.raises(CheckpointError, match="no checkpoint can be read"),
    ):
        kept.restore(state())


def test_a_damaged_best_names_the_other(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save_best(2, state(2), notes={"best": 0.2})
    (tmp_path / BEST / "2" / "_CHECKPOINT_METADATA").unlink()
    kept = Checkpoints(tmp_path, say=lambda _: None)
    with pytest.raises(CheckpointError, match="--which last reads another") as error:
        kept.restore(state(), which="best")
    assert "start anew" not in str(error.value)


def test_a_path_that_orbax_cannot_take_is_refused_before_work(tmp_path: Path):
    for name in ("run\udcff", "\udcff/run"):
        with pytest.raises(CheckpointError, match="path in UTF-8; give the folder an"):
            Checkpoints(tmp_path / name)


def test_content_that_does_not_match_its_checksum_is_refused(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save(1, state(1))
        kept.wait()
    record = tmp_path / LAST / "1" / "record" / "metadata"
    record.write_text(record.read_text().replace(checksum(state(1)), "00000000"))
    with (
        Checkpoints(tmp_path, say=lambda _: None) as kept,
        pytest.raises(CheckpointError, match="does not match its checksum"),
    ):
        kept.restore(state())


def test_another_network_is_told(tmp_path: Path):
    with Checkpoints(tmp_path) as kept:
        kept.save(1, state(1))
        kept.wait()
        with pytest.raises(CheckpointError, match="checkpoint 1 cannot be read"):
            kept.restore({"w": jnp.zeros((5, 5))})


@pytest.mark.parametrize(("saved", "restored"), [(8, 1), (1, 8), (2, 4)])
def test_another_number_of_devices(tmp_path: Path, saved: int, restored: int):
    def placed(count: int):
        mesh = training.data_mesh(jax.devices()[:count])
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        return jax.device_put({"w": jnp.arange(32.0).reshape(8, 4)}, sharding)

    with Checkpoints(tmp_path) as kept:
        kept.save(1, placed(saved))
        kept.wait()
    like = placed(restored)
    with Checkpoints(tmp_path) as kept:
        found = kept.restore(like)
    assert found is not None
    assert found[1]["w"].sharding == like["w"].sharding
    np.testing.assert_array_equal(found[1]["w"], np.arange(32.0).reshape(8, 4))


def test_checksum_sees_values_and_order():
    a, b = {"x": jnp.zeros(2), "y": jnp.ones(2)}, {"x": jnp.ones(2), "y": jnp.zeros(2)}
    assert checksum(a) == checksum(dict(reversed(a.items())))
    assert checksum(a) != checksum(b)
