"""What is freed stays with the process, and only where there is room for it."""

import contextlib
import ctypes
import os
import subprocess
import sys

import pytest

from dex_jax import _allocator

# A block of 100 MiB, taken and given back; the system's page faults of the third time.
PROGRAM = """
import resource, sys
import numpy as np
from dex_jax import _allocator

def work():
    block = np.empty(100 * 2**20, np.uint8)
    block[:] = 1

work()
if sys.argv[1] == "keep":
    assert _allocator.keep_freed_memory()
if sys.argv[1] == "give back":
    with _allocator.freed_memory_kept() as kept:
        assert kept
        work()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None


class Library:
    """A C library that writes down what it is asked for."""

    def __init__(self, answer: int = 1):
        self.asked: dict[int, int] = {}
        self.trimmed = 0
        self._answer = answer

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked[parameter] = value
        return self._answer

    def malloc_trim(self, pad: int) -> None:
        assert pad == 0
        self.trimmed += 1


@pytest.fixture
def library(monkeypatch):
    """On Linux, with no wish of the user's, and room for everything."""
    for name in _allocator._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    found = Library()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda _: found)
    monkeypatch.setattr(_allocator, "peak", lambda: 10)
    monkeypatch.setattr(_allocator, "limit", lambda: 20)
    return found


def faults(what: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        env=environment | {"GLIBC_TUNABLES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(out.stdout)


@pytest.mark.skipif(MALLOPT is None, reason="needs a C library with mallopt (glibc)")
def test_a_block_that_comes_back_is_not_cleared_again():
    pages = 100 * 2**20 // 2**21  # of 2 MiB, the fewest that the block can be
    assert faults("keep") < pages <= faults("leave")
    assert faults("give back") >= pages


def test_blocks_come_from_the_heap_and_the_heap_is_not_trimmed(library):
    assert _allocator.keep_freed_memory()
    assert library.asked == {-4: 0, -1: -1}


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_kept_for_a_while_is_given_back(library, fails):
    caught = pytest.raises(KeyError) if fails else contextlib.nullcontext()
    with caught, _allocator.freed_memory_kept() as kept:
        assert kept
        assert library.asked == {-4: 0, -1: -1}
        if fails:
            raise KeyError
    assert library.asked == {-4: 65536, -3: 2**25, -1: 2**26}
    assert library.trimmed == 1


def test_what_was_not_kept_is_not_given_back(library, monkeypatch):
    monkeypatch.setattr(_allocator, "limit", lambda: 19)
    with _allocator.freed_memory_kept() as kept:
        assert not kept
    assert not library.asked
    assert not library.trimmed


@pytest.mark.parametrize("name", _allocator._SETTINGS)
def test_what_the_user_has_set_is_left_alone(library, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    assert not _allocator.keep_freed_memory()
    assert not library.asked


def test_other_systems_are_left_alone(library, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not _allocator.keep_freed_memory()
    assert not library.asked


def test_another_c_library_is_left_alone(library, monkeypatch):
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda _: object())
    assert not _allocator.keep_freed_memory()


def test_a_refusal_is_told(library, monkeypatch):
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda _: Library(answer=0))
    assert not _allocator.keep_freed_memory()


def test_nothing_is_kept_without_room_for_twice_the_peak(library, monkeypatch):
    monkeypatch.setattr(_allocator, "limit", lambda: 19)
    assert not _allocator.keep_freed_memory()
    assert not library.asked


def test_the_peak_is_what_has_been_touched():
    assert 10 * 2**20 < _allocator.peak() < _allocator.limit()


def test_a_container_may_hold_less_than_its_machine(monkeypatch, tmp_path):
    machine = _allocator.limit()
    path = tmp_path / "memory.max"
    monkeypatch.setattr(_allocator, "_LIMITS", (str(tmp_path / "none"), str(path)))
    path.write_text("max\n")
    assert _allocator.limit() >= machine
    path.write_text(f"{2**30}\n")
    assert _allocator.limit() == 2**30
