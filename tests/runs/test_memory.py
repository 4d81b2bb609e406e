"""Freed memory stays with the process, and only where the machine has enough of it."""

import contextlib
import ctypes
import os
import subprocess
import sys

import pytest

from dex_jax.runs import _memory

# The system's page faults while something is done, the median of many times: a block
# does not fit where a thread has freed the one before too late, or where something
# settled in its place, and is then taken anew beside it; but not for ever.
MEDIAN = """
import resource, statistics, sys

def faults_of(work):
    found = []
    for _ in range(21):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        work()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return statistics.median(found)
"""
# A block of 100 MiB, taken and given back.
BLOCK = """
import numpy as np
from dex_jax.runs import _memory

def work():
    block = np.empty(100 * 2**20, np.uint8)
    block[:] = 1

work()
if sys.argv[1] == "keep":
    assert _memory.keep_freed_memory()
if sys.argv[1] == "give back":
    with _memory.freed_memory_kept() as kept:
        assert kept
        work()
print(faults_of(work))
"""
# The same of a compiled function with an array of 81 MB.
STEP = """
import jax, jax.numpy as jnp
from dex_jax.runs import _memory

jax.config.update("jax_cpu_enable_async_dispatch", False)
step = jax.jit(lambda x: jnp.outer(x, x))
x = jax.block_until_ready(jnp.arange(4500.0))
jax.block_until_ready(step(x))
if sys.argv[1] == "keep":
    assert _memory.keep_freed_memory()
print(faults_of(lambda: jax.block_until_ready(step(x))))
"""
# What a process has held before and after it takes twice as much, and how much that is.
PEAK = """
from dex_jax.runs import _memory

before = _memory.peak()
block = bytearray(b"1") * (2 * before)
print(before, len(block), _memory.peak())
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
        return self._answer if (parameter, value) == (-1, -1) else 1

    def malloc_trim(self, pad: int) -> None:
        assert pad == 0
        self.trimmed += 1


@pytest.fixture
def library(monkeypatch):
    """On Linux, with no setting of the user's, and enough memory for everything."""
    for name in _memory._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    found = Library()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: found)
    monkeypatch.setattr(_memory, "peak", lambda: 10)
    monkeypatch.setattr(_memory, "limit", lambda: 30)
    return found


def faults(what: str, program: str) -> int:
    return int(printed(MEDIAN + program, what))


def printed(program: str, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    out = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment | {"GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return out.stdout


@pytest.mark.skipif(MALLOPT is None, reason="needs a C library with mallopt (glibc)")
def test_a_block_that_comes_back_is_not_cleared_again():
    pages = 100 * 2**20 // 2**21  # of 2 MiB, the fewest that the block can be
    assert faults("keep", BLOCK) < pages <= faults("leave", BLOCK)
    assert faults("give back", BLOCK) >= pages


@pytest.mark.skipif(MALLOPT is None, reason="needs a C library with mallopt (glibc)")
def test_a_compiled_step_finds_its_memory_again():
    pages = 4 * 4500**2 // 2**21
    assert faults("keep", STEP) < pages <= faults("leave", STEP)


def test_blocks_come_from_the_heap_and_the_heap_is_not_trimmed(library):
    assert _memory.keep_freed_memory()
    assert library.asked == {-4: 0, -1: -1}


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_kept_for_a_while_is_given_back(library, fails):
    caught = pytest.raises(KeyError) if fails else contextlib.nullcontext()
    with caught, _memory.freed_memory_kept() as kept:
        assert kept
        assert library.asked == {-4: 0, -1: -1}
        if fails:
            raise KeyError
    assert library.asked == {-4: 65536, -3: 2**25, -1: 2**26}
    assert library.trimmed == 1


def test_what_was_not_kept_is_not_given_back(library, monkeypatch):
    monkeypatch.setattr(_memory, "limit", lambda: 29)
    with _memory.freed_memory_kept() as kept:
        assert not kept
    assert not library.asked
    assert not library.trimmed


@pytest.mark.parametrize("name", _memory._SETTINGS)
def test_what_the_user_has_set_is_left_alone(library, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    assert not _memory.keep_freed_memory()
    assert not library.asked


@pytest.mark.parametrize("name", ["mmap_max", "mmap_threshold", "trim_threshold"])
def test_what_the_user_has_tuned_is_left_alone(library, monkeypatch, name):
    tunables = f"glibc.malloc.hugetlb=1:glibc.malloc.{name}=8"
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    assert not _memory.keep_freed_memory()
    assert not library.asked


def test_large_pages_go_with_kept_memory(library, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert _memory.keep_freed_memory()


def test_other_systems_are_left_alone(library, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not _memory.keep_freed_memory()
    assert not library.asked


def test_another_c_library_is_left_alone(library, monkeypatch):
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: object())
    assert not _memory.keep_freed_memory()


def test_a_refusal_is_told_and_leaves_nothing_half_done(library, monkeypatch):
    unwilling = Library(answer=0)
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: unwilling)
    assert not _memory.keep_freed_memory()
    assert unwilling.asked == {-4: 65536, -3: 2**25, -1: 2**26}


def test_nothing_is_kept_without_room_for_its_growth(library, monkeypatch):
    monkeypatch.setattr(_memory, "limit", lambda: 29)
    assert not _memory.keep_freed_memory()
    assert not library.asked


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_what_has_been_touched():
    # In a process of its own: this one may have held far more before.
    before, size, after = map(int, printed(PEAK).split())
    assert after > size > before > 2**20


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """The control groups of a process on a machine of 100 GiB."""
    monkeypatch.setattr(_memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(_memory, "_GROUP_ROOT", tmp_path)
    pages = {"SC_PHYS_PAGES": 100 * 2**18, "SC_PAGE_SIZE": 2**12}
    monkeypatch.setattr(_memory.os, "sysconf", pages.__getitem__, raising=False)
    return tmp_path


def test_a_machine_without_groups_has_its_memory(groups):
    assert _memory.limit() == 100 * 2**30


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/job/step", "job/step/memory.max"),
        ("0::/job/step", "job/memory.max"),
        ("0::/job/step", "memory.max"),
        ("0::/", "memory.max"),
        ("5:memory:/job", "memory/job/memory.limit_in_bytes"),
        ("5:memory:/job", "memory/memory.limit_in_bytes"),
    ],
)
@pytest.mark.parametrize(("text", "gib"), [("max\n", 100), (f"{2**30}\n", 1)])
def test_a_container_may_hold_less_than_its_machine(groups, line, file, text, gib):
    (groups / "cgroup").write_text(f"3:cpu:/elsewhere\n{line}\n")
    path = groups / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert _memory.limit() == gib * 2**30
