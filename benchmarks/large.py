"""Chains on galleries that no array of all pairs fits, in one process.

    python benchmarks/large.py --size veriwild --chains dex,dba,k_reciprocal diffusion
    python benchmarks/large.py --size million --chains k_reciprocal diffusion

The chains share the gallery's neighbour lists, so the first one pays for the search.
Every chain keeps the best 100. "GiB" is the most memory of the process while a chain
ran; the inputs, which are in it, stand above the table. Afterwards the lists of some
rows are computed again in float64, row by row, and compared.
"""

import argparse
import os
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from clustered import SIZES, make

from dex_jax._checks import unit_rows
from dex_jax.rerank import Embeddings, NeighborCache, parse

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="100k")
    parser.add_argument("--chains", nargs="+", default=["k_reciprocal", "diffusion"])
    parser.add_argument("--rows", type=int, default=200, help="lists computed again")
    options = parser.parse_args()
    pipelines = [parse(text) for text in options.chains]
    size = SIZES[options.size]
    data = make(size)
    embeddings = Embeddings(*jax.device_put((data.query, data.gallery, data.tracklets)))
    del data
    jax.block_until_ready(embeddings)
    print(f"- set: Q {size.queries:,}, G {size.gallery:,}, D {size.width}; 100 kept")
    print(f"- {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(f"- memory with the inputs: {_memory('VmRSS') / GIB:.2f} GiB\n")
    print("| chain | s | CPU s | GiB | searches |\n| --- | --- | --- | --- | --- |")
    # k-reciprocal reads the widest lists: with them no chain searches again.
    cache = NeighborCache(least=61)
    for pipeline in pipelines:
        Path("/proc/self/clear_refs").write_text("5")
        done, start, cpu = cache.searches, time.perf_counter(), time.process_time()
        jax.block_until_ready(pipeline(embeddings, top=100, cache=cache))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        cells = f"{seconds:.0f} | {cpu:.0f} | {_memory('VmHWM') / GIB:.2f}"
        print(f"| {pipeline} | {cells} | {cache.searches - done} |", flush=True)
    print(f"\n{_check(cache, embeddings, options.rows)}")


def _memory(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _check(cache: NeighborCache, embeddings: Embeddings, rows: int) -> str:
    """Compares some lists of the plain gallery with sorted cosines in float64."""
    gallery = np.asarray(embeddings.gallery)
    norms = np.linalg.norm(gallery, axis=1).astype(np.float64)
    rows_there = unit_rows(jnp.asarray(embeddings.gallery))
    graph = cache.lists(rows_there, 61, len(gallery))
    if graph is None:
        return "no lists to compare"
    ids, scores = (np.asarray(x) for x in graph.first(61))
    worst, moved = 0.0, 0
    for row in np.random.default_rng(1).choice(len(gallery), rows, replace=False):
        exact = np.concatenate(
            [
                part.astype(np.float64) @ gallery[row].astype(np.float64)
                for part in np.array_split(gallery, 16)
            ]
        ) / (norms * norms[row])
        best = np.sort(exact)[::-1][: ids.shape[1]]
        worst = max(worst, float(np.abs(scores[row] - best).max()))
        worst = max(worst, float(np.abs(scores[row] - exact[ids[row]]).max()))
        moved += int((exact[ids[row]] < best[-1] - 1e-6).sum())
    return (
        f"{rows} lists of {ids.shape[1]} computed again in float64: cosines differ by "
        f"{worst:.1e} at most, {moved} entries do not belong"
    )


if __name__ == "__main__":
    main()
