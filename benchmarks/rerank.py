"""Runs the re-ranking kernels and their peers on the same embeddings, one table out.

    python benchmarks/rerank.py --quick
    python benchmarks/rerank.py --size cityflow --threads all
    python benchmarks/rerank.py --size market --device gpu

Each implementation runs in a process of its own, one after another, on the same rows.
Times are medians after one warm call, of fewer calls where one is slow; an
implementation without timed repeats runs once, cold. "compile" is the CPU time of the
first call beyond the later ones. "GiB" is the most memory that the process held above
its inputs, compilation and result included. "of floor" is the time of the products that
the kernel needs, each pair once and done alone, over its own. Ratios are peer over
`dex_jax`, by the clock and by CPU time: where other programs share the machine the
second is the sounder one. A package that is missing is named in the table.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from clustered import SIZES, make
from jobs import DENSE_LIMIT, JOBS, OURS, PRODUCT, Job

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "faiss-cpu", "fastreid", "torch")
COLUMNS = (
    "kernel",
    "implementation",
    "s",
    "CPU s",
    "compile",
    "GiB",
    "of floor",
    "ratio",
    "CPU ratio",
    "differs",
)
GIB = 2**30
# Calls slower than this are timed once.
SLOW = 10.0


def main() -> None:
    options = _options()
    if options.worker is not None:
        print(json.dumps(_measure(JOBS[options.worker], options)))
        return
    print("\n".join(_header(options)), flush=True)
    for threads in ("one", "all") if options.threads == "both" else (options.threads,):
        print(f"\n### {options.size}, {threads} thread(s)\n")
        print(f"| {' | '.join(COLUMNS)} |")
        print("| --- " * len(COLUMNS) + "|", flush=True)
        _table(options, threads)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="cityflow")
    parser.add_argument("--quick", action="store_true", help="a small set: minutes")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", choices=("one", "all", "both"), default="both")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument(
        "--limit", type=int, default=3600, help="seconds a run may take"
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.size = "quick"
    return options


def _header(options: argparse.Namespace) -> list[str]:
    size = SIZES[options.size]
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} missing")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return [
        f"- command: `python benchmarks/rerank.py {' '.join(sys.argv[1:])}`",
        f"- commit: {commit or 'unknown'}; Python {platform.python_version()}; "
        + ", ".join(found),
        f"- machine: {_processor()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start; device {options.device}",
        f"- set: Q {size.queries:,}, G {size.gallery:,}, D {size.width}, synthetic",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def _table(options: argparse.Namespace, threads: str) -> None:
    ours: dict[str, dict[str, Any]] = {}
    for number, job in enumerate(JOBS):
        if options.only not in job.kernel and job.kernel != PRODUCT:
            continue
        found = _run(number, job, options, threads)
        if job.name == OURS:
            ours[job.kernel] = found
        cells = [job.kernel, job.name, *_cells(job, found, ours)]
        cells += [""] * (len(COLUMNS) - len(cells))
        print(f"| {' | '.join(cells)} |", flush=True)


def _cells(
    job: Job, found: dict[str, Any], ours: dict[str, dict[str, Any]]
) -> list[str]:
    if "missing" in found:
        return [found["missing"]]
    cells = [f"{found[name]:.3g}" for name in ("seconds", "cpu", "compile")]
    cells.append(f"{found['memory'] / GIB:.2f}")
    if job.name == OURS:
        floor = ours.get(PRODUCT, {}).get("seconds", 0) * job.products
        return [*cells, f"{floor / found['seconds']:.0%}" if floor else ""]
    mine = ours.get(job.kernel, {})
    if "seconds" not in mine:
        return cells
    ratios = [f"{found[name] / mine[name]:.1f}" for name in ("seconds", "cpu")]
    if not job.same:
        return [*cells, "", *ratios, "another definition"]
    gap = np.abs(np.subtract(found["sample"], mine["sample"]))
    far = int((gap > 1e-4).sum())
    note = f" ({far} of {gap.size} above 1e-4)" if far else ""
    return [*cells, "", *ratios, f"{gap.max():.1e}{note}"]


def _run(
    number: int, job: Job, options: argparse.Namespace, threads: str
) -> dict[str, Any]:
    size = SIZES[options.size]
    if job.dense and size.queries + size.gallery > DENSE_LIMIT:
        need = 4 * (size.queries + size.gallery) ** 2 / GIB
        return {"missing": f"not run: {need:.0f} GiB for one of its arrays"}
    if job.stands_in_for and importlib.util.find_spec(job.stands_in_for):
        return {"missing": f"not run: {job.stands_in_for} is installed"}
    command = [sys.executable, __file__, "--worker", str(number)]
    command += ["--size", options.size, "--device", options.device]
    environment = dict(os.environ)
    if options.device == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"

    def pin() -> None:
        # One core to run on is one thread for every library.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=options.limit,
            preexec_fn=pin if threads == "one" else None,
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"stopped after {options.limit} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"missing": f"not run: {last}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    data = make(SIZES[options.size])
    call = job.prepare(data)
    before = _memory(options.device, start=True)
    first, first_cpu, result = _timed(call)
    times, used = [], []
    repeats = min(job.repeats, 1) if first > SLOW else job.repeats
    for _ in range(repeats):
        result = None
        seconds, cpu, result = _timed(call)
        times.append(seconds)
        used.append(cpu)
    if not repeats:
        times, used = [first], [first_cpu]
    peak = _memory(options.device, start=False)
    sample = np.atleast_2d(np.asarray(result))
    sample = sample.reshape(-1, sample.shape[-1])[:32, :64]
    return {
        "seconds": statistics.median(times),
        "cpu": statistics.median(used),
        "compile": max(first_cpu - statistics.median(used), 0),
        "memory": max(peak - before, 0),
        "sample": sample.astype(float).tolist(),
    }


def _timed(call: Any) -> tuple[float, float, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - start, time.process_time() - cpu, result


def _memory(device: str, *, start: bool) -> int:
    """Bytes in use now, or, at the end, the most since the start."""
    if device == "gpu":
        import jax

        held = jax.devices()[0].memory_stats() or {}
        return held.get("bytes_in_use" if start else "peak_bytes_in_use", 0)
    if start:
        # The kernel's high-water mark begins anew.
        Path("/proc/self/clear_refs").write_text("5")
    wanted = "VmRSS" if start else "VmHWM"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
