"""Keeps freed memory for the next step or batch, where glibc would give it back.

XLA takes all temporary arrays of a step as one block. On a CPU that block comes from
`malloc`, and glibc returns a block of such a size to the system, so that at every step
the system clears its pages anew: a sixth of a ResNet's training step, a third of an
EfficientNet's (`docs/models.md`).
"""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
# How glibc starts, but for thresholds at the upper end of what it moves to by itself.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
# Whoever sets one of these has made up their mind.
_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_TUNABLES = re.compile(r"glibc\.malloc\.(mmap_max|mmap_threshold|trim_threshold)=")
# A block is taken anew beside its old place if something has settled there since: on a
# machine with more threads than cores at most three places were seen.
_ROOM = 3
_STATUS, _GROUPS, _GROUP_ROOT = (
    Path("/proc/self/status"),
    Path("/proc/self/cgroup"),
    Path("/sys/fs/cgroup"),
)


def keep_freed_memory() -> bool:
    """Keeps what the main thread frees from now on for later blocks of the process.

    Best called when the process has met its largest need: a heap with gaps may take
    three times that, so nothing is changed where three times the peak so far exceeds
    the machine's memory or the container's. Only the main thread's heap holds blocks
    above 64 MiB, so large steps have to be computed there: on one device, with
    `jax_cpu_enable_async_dispatch=False` and inputs that are ready.

    Returns:
        Whether it was done: only with glibc, with enough memory, and where the
        environment does not set the same itself.
    """
    if sys.platform != "linux" or _has_wishes() or _ROOM * peak() > limit():
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    if all(library.mallopt(*setting) == 1 for setting in _KEPT.items()):
        return True
    _give_back(library)
    return False


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Does `keep_freed_memory`, and gives everything back at the end.

    Yields:
        Whether it was done.
    """
    kept = keep_freed_memory()
    try:
        yield kept
    finally:
        if kept:
            _give_back(ctypes.CDLL(None))


def keep_step_memory() -> str | None:
    """Does `keep_freed_memory` where a CPU computes steps in this thread.

    Best called after the first step: later ones work in its memory.

    Returns:
        A line that says so; None where nothing is kept.
    """
    # Several devices compute in threads of their own, whose heaps cannot keep it.
    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    if not (alone and keep_freed_memory()):
        return None
    return f"freed memory is kept for the next step ({peak() / 2**30:.1f} GiB so far)"


def peak() -> int:
    """The most memory that this process has held, in bytes; only on Linux."""
    # `getrusage` would count what the program held that this one replaced.
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def limit() -> int:
    """The memory of the machine, or of the container if that is less, in bytes."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _limit_files():
        # "max" where there is no limit.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return min(found)


def _limit_files() -> Iterator[Path]:
    """Where limits may stand: of this process's control groups and those above."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = _GROUPS.read_text().splitlines()
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        group = Path(place)
        for above in (group, *group.parents):
            yield _GROUP_ROOT / kinds / str(above).lstrip("/") / name


def _has_wishes() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(name in os.environ for name in _SETTINGS) or bool(
        _TUNABLES.search(tunables)
    )


def _give_back(library: ctypes.CDLL) -> None:
    for setting in _USUAL.items():
        library.mallopt(*setting)
    library.malloc_trim(0)
