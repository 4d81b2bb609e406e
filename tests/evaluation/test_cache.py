"""Descriptors on disk: damaged files, and which code makes them old."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dex_jax
from dex_jax.evaluation import Cache, Descriptors, code_version
from dex_jax.evaluation._cache import CODE


def damage(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 255
    return {"cut": content[:-200], "flipped": bytes(flipped), "empty": b""}


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty"])
def test_damaged_cache_is_reported_and_made_anew(tmp_path, kind):
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    said, made = [], []

    def compute() -> Descriptors:
        made.append(1)
        return Descriptors(rows, 1.0, reused=False)

    cache = Cache(tmp_path, say=said.append)
    cache.get({"a": 1}, compute)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes())[kind])
    found = cache.get({"a": 1}, compute)
    assert not found.reused and len(made) == 2
    assert "is damaged" in said[0] and str(path) in said[0]
    np.testing.assert_array_equal(cache.get({"a": 1}, compute).features, rows)
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_values_in_another_shape_are_damage(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    said: list[str] = []
    cache = Cache(tmp_path, say=said.append)
    cache.get({"a": 1}, lambda: Descriptors(rows, 1.0, reused=False))
    (path,) = tmp_path.iterdir()
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    for other in (rows.reshape(4, 6), rows.view(np.int32)):
        np.savez(path, **{**arrays, "features": other})
        found = cache.get({"a": 1}, lambda: Descriptors(rows, 1.0, reused=False))
        assert not found.reused and "is damaged" in said[-1]


def test_descriptors_are_kept_in_hand_where_the_disk_takes_none(tmp_path):
    """A folder stands where the file would go."""
    rows, said = np.eye(2, dtype=np.float32), []
    cache = Cache(tmp_path, say=said.append)
    cache.get({"a": 1}, lambda: Descriptors(rows, 1.0, reused=False))
    (path,) = tmp_path.iterdir()
    path.unlink()
    (path / "inside").mkdir(parents=True)
    found = cache.get({"a": 1}, lambda: Descriptors(rows, 1.0, reused=False))
    np.testing.assert_array_equal(found.features, rows)
    assert "is damaged" in said[-2] and "is not written" in said[-1]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package's source files."""
    source = Path(dex_jax.__file__).parent
    # Other tests write compiled modules beside the sources meanwhile.
    compiled = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(source, tmp_path / "dex_jax", ignore=compiled))


def test_the_copy_is_the_same_code(package):
    assert code_version(package) == code_version()


@pytest.mark.parametrize("name", CODE)
def test_code_that_describes_makes_the_cache_old(package, name):
    before = code_version(package)
    path = package / name
    path = min(path.glob("*.py")) if path.is_dir() else path
    path.write_text(path.read_text() + "\n")
    assert code_version(package) != before


def test_code_that_draws_reads_or_ranks_leaves_the_cache_as_it_is(package):
    before = code_version(package)
    for name in ("procedural", "report", "rerank", "neighbors"):
        for path in (package / name).rglob("*.py"):
            path.write_text("")
    (package / "data" / "_cityflow.py").unlink()
    assert code_version(package) == before


def test_a_moved_file_is_another_code(package):
    before = code_version(package)
    (package / "models" / "_layers.py").rename(package / "models" / "_other.py")
    assert code_version(package) != before


def test_the_code_is_what_turns_a_file_into_a_descriptor():
    """Decoding, resizing, normalising, the network and how a run builds it."""
    assert {
        "_checks",
        "data/_images.py",
        "evaluation/_extraction.py",
        "models",
        "pipeline/_augment.py",
        "pipeline/_batches.py",
        "runs/_build.py",
        "runs/_load.py",
        "training/_network.py",
    } <= set(CODE)


def test_a_file_under_the_name_of_another_key_is_not_taken(tmp_path):
    said: list[str] = []
    cache = Cache(tmp_path, say=said.append)
    rows = np.eye(2, dtype=np.float32)
    cache.get({"n": 1}, lambda: Descriptors(rows, 1.0, False))
    (first,) = tmp_path.glob("*.npz")
    cache.get({"n": 2}, lambda: Descriptors(2 * rows, 1.0, False))
    (second,) = set(tmp_path.glob("*.npz")) - {first}
    shutil.copy(first, second)
    found = cache.get({"n": 2}, lambda: Descriptors(2 * rows, 1.0, False))
    assert not found.reused and "belongs to another key" in said[-1]
    np.testing.assert_array_equal(found.features, 2 * rows)
