"""Keeps freed memory for the next step or batch, where glibc would give it back.

XLA takes all temporary arrays of a step as one block. On a CPU that block comes from
`malloc`, and glibc returns a block of such a size to the system, so that at every step
the system clears its pages anew: a sixth of a ResNet's training step, a third of an
EfficientNet's (`docs/models.md`).
"""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# How glibc starts, but for thresholds at the upper end of what it moves to by itself.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}
# Whoever sets one of these has made up their mind.
_SETTINGS = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
# A block is taken beside its old place if something has settled there since.
_ROOM = 2
_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def keep_freed_memory() -> bool:
    """Keeps what the main thread frees from now on for later blocks of the process.

    Call it when the process has met its largest need. A heap with gaps may take up to
    twice that need, so nothing is changed where twice the peak so far exceeds the
    machine's memory or the container's. Only the main thread's heap holds blocks
    above 64 MiB, so large steps have to be computed there
    (`jax_cpu_enable_async_dispatch=False`).

    Returns:
        Whether it was done: only with glibc, with room, and where the environment does
        not set the same itself.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return False
    if _ROOM * peak() > limit():
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    mallopt = library.mallopt
    return mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, -1) == 1


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
            library = ctypes.CDLL(None)
            for parameter, value in _USUAL.items():
                library.mallopt(parameter, value)
            library.malloc_trim(0)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit() -> int:
    """The memory of the machine, or of the container if that is less, in bytes."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        # "max" where there is no limit.
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))
    return min(found)
