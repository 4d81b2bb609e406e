"""Memory of each step, as multiples of the gallery `G x D` and of its lists `G x K`.

    python -m benchmarks.memory

Each step runs twice, each time in a process of its own: the first fills a cache of
compiled programs, so that the second one's peak is that of arrays and not of the
compiler. Arrays of the caller and of jax itself are taken off.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

Q, K = 64, 50
CALLS = {
    "nearest_neighbors": "neighbors.nearest_neighbors(query, gallery, k=K)",
    "nearest_neighbors, itself": "neighbors.nearest_neighbors(gallery, gallery, k=K)",
    "alpha_qe": "rerank.alpha_query_expansion(query, gallery)",
    "dex": "rerank.tracklet_query_expansion(query, gallery, tracklets)",
    "dba": "rerank.database_augmentation(gallery)",
    "tracklet_means": "rerank.tracklet_means(gallery, tracklets)",
    "cosine, top 100": 'rerank.parse("none")(embeddings, top=100)',
    "k_reciprocal(k1=49,k2=20), top 100": (
        'rerank.parse("k_reciprocal(k1=49,k2=20)")(embeddings, top=100)'
    ),
    "diffusion, top 100": 'rerank.parse("diffusion")(embeddings, top=100)',
    "dex,dba,diffusion,tracklet, top 100": (
        'rerank.parse("dex,dba,diffusion,tracklet")(embeddings, top=100)'
    ),
}


def main() -> None:
    """Prints a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gallery", type=int, default=40_000, help="images, G")
    parser.add_argument("--dim", type=int, default=512, help="dimensions, D")
    parser.add_argument("--call", choices=CALLS, help="only measure this one, as JSON")
    flags = parser.parse_args()
    if flags.call:
        print(json.dumps(_measure(CALLS[flags.call], flags.gallery, flags.dim)))
        return
    rows, lists = flags.gallery * flags.dim * 4, flags.gallery * K * 8
    print(f"G {flags.gallery}, D {flags.dim}, K {K}, Q {Q}")
    print(f"G x D {rows / 2**20:.0f} MiB, G x K {lists / 2**20:.0f} MiB")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        command = [sys.executable, "-m", "benchmarks.memory"]
        command += [f"--gallery={flags.gallery}", f"--dim={flags.dim}"]
        for name in CALLS:
            _, second = (
                subprocess.run(
                    [*command, f"--call={name}"],
                    env=environment,
                    stdout=subprocess.PIPE,
                    check=True,
                ).stdout
                for _ in range(2)
            )
            peak = json.loads(second)["peak"]
            print(
                f"{name}: {peak / 2**20:.0f} MiB, {peak / rows:.1f} G x D, "
                f"{peak / lists:.1f} G x K",
                flush=True,
            )


def _measure(call: str, images: int, dim: int) -> dict[str, int]:
    """Bytes by which the peak of this process rises in one call."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dex_jax import neighbors, rerank

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    rng = np.random.default_rng(0)
    tracklets = np.repeat(np.arange(-(-images // 8)), 8)[:images]
    rows = rng.standard_normal((images, dim), dtype=np.float32)
    centres = rng.standard_normal((tracklets[-1] + 1, dim), dtype=np.float32)
    rows += 2 * centres[tracklets]
    queries = rows[:: -(-images // Q)] + np.float32(0.1)
    gallery, query = jnp.asarray(rows), jnp.asarray(queries)
    del rows, centres
    embeddings = rerank.Embeddings(query, gallery, tracklets)
    names = {
        "neighbors": neighbors,
        "rerank": rerank,
        "query": query,
        "gallery": gallery,
        "tracklets": tracklets,
        "embeddings": embeddings,
        "K": K,
    }
    # Linux: the peak starts anew at what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    jax.block_until_ready(eval(call, names))
    return {"peak": _status("VmHWM") - before}


def _status(name: str) -> int:
    """A size of this process in bytes, as Linux tells it."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) * 1024


if __name__ == "__main__":
    main()
