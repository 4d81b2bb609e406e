"""A few hundred spoiled checkpoints: each is read, or refused in our words."""

import os
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoint_files import CONTAINERS, small_tensors
from benchmarks.mutations import mutate, spoil
from dex_jax.models import read_torch_checkpoint

MOST = 64 * 2**20


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_written_for_the_test_is_read(tmp_path: Path, container: str):
    (tmp_path / container).write_bytes(CONTAINERS[container](small_tensors()))
    tensors = read_torch_checkpoint(tmp_path / container)
    assert set(tensors) == set(small_tensors())
    for name, tensor in small_tensors().items():
        np.testing.assert_array_equal(tensors[name], tensor)


@pytest.mark.parametrize("container", CONTAINERS)
def test_spoiled_files_are_read_or_refused(tmp_path: Path, container: str):
    content = CONTAINERS[container](small_tensors())
    path = tmp_path / container
    outcomes: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for number in range(100):
            spoiled = mutate(np.random.default_rng([number, 17]), content)
            path.write_bytes(spoiled)
            tracemalloc.reset_peak()
            try:
                arrays = read_torch_checkpoint(path)
                assert all(isinstance(a, np.ndarray) for a in arrays.values())
                outcomes["read"] += 1
            except ValueError as error:
                # Not one of its subclasses: those are other people's.
                assert type(error) is ValueError, (number, error)
                assert str(error).startswith(f"{path}: "), (number, error)
                outcomes["refused"] += 1
            assert tracemalloc.get_traced_memory()[1] < MOST + 8 * len(spoiled), number
    finally:
        tracemalloc.stop()
    assert outcomes["refused"] > 50


def test_what_is_no_file_is_not_opened(tmp_path: Path):
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    for path, kind in (("folder.pth", "a folder"), ("pipe.pth", "a pipe, socket")):
        with pytest.raises(ValueError, match=rf"{path}: is {kind}.*expected a checkp"):
            read_torch_checkpoint(tmp_path / path)
    with pytest.raises(ValueError, match=r"/dev/zero: is a pipe, socket or device"):
        read_torch_checkpoint("/dev/zero")


def test_a_spoiled_file_may_become_anything(tmp_path: Path):
    """The mutations do what they say: equal seeds, every kind of thing."""
    path = tmp_path / "a.txt"
    kinds = set()
    for seed in range(400):
        path.write_bytes(b"some 12 words")
        spoil(np.random.default_rng(seed), path)
        kinds.add("folder" if path.is_dir() else "pipe" if path.is_fifo() else "file")
        if not path.exists():
            kinds.add("nothing")
            continue
        path.rmdir() if path.is_dir() else path.unlink()
    assert kinds == {"folder", "pipe", "file", "nothing"}
    same = [mutate(np.random.default_rng(3), bytes(range(200))) for _ in range(2)]
    assert same[0] == same[1] != bytes(range(200))
