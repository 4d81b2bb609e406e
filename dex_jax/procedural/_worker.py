"""Draws tracklets, alone or in processes of its own.

The workers are started afresh, not forked and not through `multiprocessing`: a fork of
a process that runs jax may hang, and a spawned one would run the caller's script again.
"""

import contextlib
import io
import os
import pickle
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
from PIL import Image

from dex_jax.procedural._plan import Job
from dex_jax.procedural._render import prepare, render

Drawn = tuple[Job, list[bytes]]

# One core for each worker, no accelerator, and an allocator that keeps its memory:
# giving each temporary array back to the system costs a quarter of the time.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "67108864",
}


def draw_pixels(job: Job) -> Iterator[np.ndarray]:
    """Draws the frames of a tracklet: float32 `[S, S, 3]` each, in [0, 255]."""
    subject = prepare(job.vehicle)
    for i, phase in enumerate(job.phases):
        rng = np.random.default_rng([job.drive.seed, i])
        yield render(subject, job.camera, job.drive, phase, rng, size=job.size)


def draw(job: Job) -> list[bytes]:
    """Draws the frames of a tracklet as JPEG files."""
    out = []
    for pixels in draw_pixels(job):
        file = io.BytesIO()
        picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
        picture.save(file, "JPEG", quality=job.camera.quality)
        out.append(file.getvalue())
    return out


def draw_all(jobs: list[Job], *, workers: int) -> Generator[Drawn, None, None]:
    """Draws many tracklets; order and content do not depend on `workers`.

    Raises:
        RuntimeError: a worker failed; its own words are on stderr.
    """
    if workers == 1:
        for job in jobs:
            yield job, draw(job)
        return
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    staff = [_Worker() for _ in range(workers)]
    for worker in staff:
        idle.put(worker)

    def hand_over(job: Job) -> list[bytes]:
        worker = idle.get()
        try:
            return worker.draw(job)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(workers)
    futures = deque(pool.submit(hand_over, job) for job in jobs)
    try:
        for job in jobs:
            yield job, futures.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in staff:
            worker.stop()
        pool.shutdown()


class _Worker:
    """A process that draws."""

    def __init__(self):
        # Wherever this process found the package, the worker finds it too.
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the caller, who stops it
        )

    def draw(self, job: Job) -> list[bytes]:
        into, out = self._process.stdin, self._process.stdout
        try:
            if into is None or out is None:
                raise EOFError
            _write(into, pickle.dumps(job))
            return pickle.loads(_read(out))
        except (OSError, EOFError, ValueError) as error:
            raise RuntimeError(
                f"the worker that drew {job.names[0]} ended; fewer workers, or "
                "workers=1, need less memory"
            ) from error

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # What was not yet written goes nowhere.
                with contextlib.suppress(OSError):
                    stream.close()


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    return stream.read(struct.unpack("<Q", head)[0])


def serve() -> None:
    """The worker: reads jobs and writes images until its input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            job = pickle.loads(_read(source))
        except EOFError:
            return
        _write(sink, pickle.dumps(draw(job)))
