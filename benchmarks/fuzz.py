"""Spoiled files for every reader: an answer, or an error of ours that names the file.

    python -m benchmarks.fuzz --inputs 50000 --seed 0
    python -m benchmarks.fuzz --inputs 2000 --reader checkpoints --reader images

Files are read in processes of their own, so that a crash is counted and not suffered.
Prints one line a reader and exits with 1 after a foreign exception, a signal, a file
that takes longer than 20 seconds, or a peak above the limit of memory. One file of each
such kind is kept.
"""

import argparse
import contextlib
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_readers import READERS, Reader
from benchmarks.mutations import spoil

BATCH = 500
SECONDS = 20
# What a process may take: far above the limit that is judged, far below the machine.
CEILING = 4 * 2**30
OURS = ("ValueError", "FileNotFoundError")


@dataclass
class Found:
    """What became of one reader's files.

    Attributes:
        kinds: how often each outcome was seen.
        examples: a kept file of every outcome that should not be.
        slowest: seconds.
        peak: MB of the largest process.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Path] = field(default_factory=dict)
    slowest: float = 0.0
    peak: float = 0.0


def judge(reader: Reader, path: Path, names: set[str]) -> str:
    """Reads a file and says what came of it.

    Args:
        reader: what reads it.
        path: the file or folder.
        names: of all files there were; an error of ours holds one of them.

    Returns:
        "answer", "ours: TYPE", or "foreign: TYPE".
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            reader.read(path)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        kind = type(error).__name__
        if kind not in (*OURS, *reader.errors):
            return f"foreign: {kind}"
        if not any(name in str(error) for name in (*names, *reader.names)):
            return f"foreign: {kind} that names no file"
        return f"ours: {kind}"
    return "answer"


def spoiled(
    good: list[Path], work: Path, pattern: str = "*", *, seed: int, number: int
) -> tuple[Path, set[str]]:
    """Copies a good file, or a folder of them, and spoils one that fits the pattern.

    Returns:
        What is to be read, and the names of all files in it.
    """
    rng = np.random.default_rng([seed, number])
    source = good[int(rng.integers(len(good)))]
    path = work / source.name
    if source.is_file():
        shutil.copy(source, path)
        spoil(rng, path)
        return path, {path.name}
    shutil.copytree(source, path)
    files = sorted(file for file in path.rglob(pattern) if file.is_file())
    names = {file.name for file in files} | {path.name}
    spoil(rng, files[int(rng.integers(len(files)))])
    return path, names


def read_batch(name: str, folder: Path, *, seed: int, first: int, last: int) -> None:
    """Reads files `first` to `last`; prints a line before and after each."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (CEILING, CEILING))
    reader, seen = READERS[name], set()
    good_folder = folder / f"good{first}"
    good_folder.mkdir(parents=True)
    good = reader.write(good_folder)
    with contextlib.redirect_stdout(io.StringIO()):
        for path in good:
            reader.read(path)
    for number in range(first, last):
        work = folder / str(number)
        work.mkdir()
        path, names = spoiled(good, work, reader.spoils, seed=seed, number=number)
        print(json.dumps({"number": number}), flush=True)
        # Kills even a loop inside of a library; the process that started this counts.
        signal.alarm(SECONDS)
        start = time.perf_counter()
        kind = judge(reader, path, names)
        seconds = time.perf_counter() - start
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"kind": kind, "seconds": seconds, "peak": peak}), flush=True)
        if kind in seen or not kind.startswith("foreign"):
            shutil.rmtree(work)
        seen.add(kind)
    shutil.rmtree(good_folder)


def batches(name: str, *, inputs: int, seed: int, folder: Path) -> Iterator[dict]:
    """What the processes say of each file; after one has died, the next goes on."""
    first = 0
    while first < inputs:
        last = min(first + BATCH, inputs)
        words = ["--child", name, str(first), str(last), "--seed", str(seed)]
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.fuzz", *words, "--keep", str(folder)],
            capture_output=True,
            check=False,
        )
        said: list[dict[str, Any]] = list(map(json.loads, ended.stdout.splitlines()))
        yield from said
        if not ended.returncode:
            first = last
        elif ended.returncode < 0 and said and "number" in said[-1]:
            why = signal.Signals(-ended.returncode).name
            yield {"kind": f"signal: {why}", "seconds": SECONDS * (why == "SIGALRM")}
            shutil.rmtree(folder / f"good{first}")
            first = said[-1]["number"] + 1
        else:
            raise RuntimeError(ended.stderr.decode(errors="replace")[-2000:])


def fuzz(name: str, *, inputs: int, seed: int, folder: Path) -> Found:
    """Reads so many spoiled files with one reader."""
    found, number = Found(), 0
    for said in batches(name, inputs=inputs, seed=seed, folder=folder):
        if "kind" not in said:
            number = said["number"]
            continue
        kind = said["kind"]
        found.kinds[kind] += 1
        found.slowest = max(found.slowest, said["seconds"])
        found.peak = max(found.peak, said.get("peak", 0.0))
        if kind.startswith(("foreign", "signal")):
            place = folder / str(number)
            if found.examples.setdefault(kind, place) != place:
                shutil.rmtree(place, ignore_errors=True)
    return found


def report(name: str, found: Found, *, limit: float) -> bool:
    """Prints a reader's line and what is wrong below it; whether nothing was."""
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(found.kinds.items()))
    total = sum(found.kinds.values())
    line = f"{name:16} {total:>7} {found.slowest:>9.2f} {found.peak:>8.0f}  {counts}"
    print(line, flush=True)
    for kind, path in found.examples.items():
        print(f"{'':16} {kind}: {path}", flush=True)
    if found.peak > limit:
        print(f"{'':16} above the limit of {limit:.0f} MB", flush=True)
    return not found.examples and found.peak <= limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000, help="of all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=list(READERS))
    parser.add_argument("--limit", type=float, default=500, help="MB of a process")
    parser.add_argument("--keep", type=Path, help="folder for what should not be")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, first, last = options.child
        ends = {"first": int(first), "last": int(last)}
        read_batch(name, options.keep, seed=options.seed, **ends)
        return 0
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"--keep: {folder} is not empty")
    readers = options.reader or list(READERS)
    each = -(-options.inputs // len(readers))
    print(
        f"{'reader':16} {'files':>7} {'slowest s':>9} {'peak MB':>8}  what came of it"
    )
    fine = True
    for name in readers:
        place = folder / name.replace(" ", "_")
        found = fuzz(name, inputs=each, seed=options.seed, folder=place)
        fine &= report(name, found, limit=options.limit)
        if not found.examples:
            shutil.rmtree(place)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
