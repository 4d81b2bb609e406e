"""Draws tracklets, alone or in processes of its own.

The workers are started as a module, not forked and not through `multiprocessing`:
a fork of a process that runs jax may hang, and a spawned one would run the caller's
script again.
"""

import io
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from typing import IO

import numpy as np
from PIL import Image

from dex_jax.data._procedural_plan import Job
from dex_jax.data._procedural_render import prepare, render

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
    """Draws many tracklets; order and content do not depend on `workers`."""
    if workers == 1:
        for job in jobs:
            yield job, draw(job)
        return
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(jobs)):
        tasks.put(i)
    results: queue.SimpleQueue[tuple[int, list[bytes] | str]] = queue.SimpleQueue()
    processes = [_start() for _ in range(workers)]
    for process in processes:
        threading.Thread(
            target=_feed, args=(process, jobs, tasks, results), daemon=True
        ).start()
    try:
        ready: dict[int, list[bytes]] = {}
        for i, job in enumerate(jobs):
            while i not in ready:
                number, images = results.get()
                if isinstance(images, str):
                    raise RuntimeError(f"drawing {jobs[number].names[0]}: {images}")
                ready[number] = images
            yield job, ready.pop(i)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start() -> subprocess.Popen:
    # Wherever this process found the package, the worker finds it too.
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        start_new_session=True,
    )


def _feed(
    process: subprocess.Popen,
    jobs: list[Job],
    tasks: queue.SimpleQueue,
    results: queue.SimpleQueue,
) -> None:
    """Hands jobs to one worker until there are none left."""
    if process.stdin is None or process.stdout is None:
        return
    while not tasks.empty():
        try:
            number = tasks.get_nowait()
        except queue.Empty:
            break
        try:
            _write(process.stdin, pickle.dumps(jobs[number]))
            results.put((number, pickle.loads(_read(process.stdout))))
        except (OSError, EOFError):
            results.put((number, f"a worker ended with code {process.wait()}"))
            return
    process.stdin.close()
    process.stdout.close()


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    return stream.read(struct.unpack("<Q", head)[0])


def _serve() -> None:
    """The worker: reads jobs and writes images until its input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            job = pickle.loads(_read(source))
        except EOFError:
            return
        _write(sink, pickle.dumps(draw(job)))


if __name__ == "__main__":
    _serve()
