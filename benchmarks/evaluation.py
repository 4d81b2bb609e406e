"""Time and peak memory of Table 6 at the size of CityFlow-ReID, given embeddings.

    python benchmarks/evaluation.py [--dimension 4352] [--keep FOLDER]

Draws 1,052 queries and 18,290 gallery images of 333 identities in 798 tracklets from a
seed, writes them as an embeddings file, and runs `evaluate.py --rerank table6` on it
as a process of its own, which is what is measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dex_jax.embeddings import EmbeddingFile, save

QUERIES, GALLERY, IDENTITIES, TRACKLETS = 1_052, 18_290, 333, 798
LATENT = 32
ROOT = Path(__file__).parents[1]


def draw(dimension: int) -> EmbeddingFile:
    """Identity, tracklet and image noise, so that every step has work to do."""
    rng = np.random.default_rng(0)
    owners = np.sort(rng.integers(0, IDENTITIES, TRACKLETS))
    owners[:IDENTITIES] = np.arange(IDENTITIES)
    tracklets = np.sort(rng.integers(0, TRACKLETS, GALLERY))
    identities = rng.integers(0, IDENTITIES, QUERIES)
    # A few latent directions, as trained descriptors have: in all 4,352 the noise
    # would average out and every list would be perfect.
    spread = rng.standard_normal((LATENT, dimension), np.float32)
    centres = rng.standard_normal((IDENTITIES, LATENT), np.float32)
    views = centres[owners] + 0.7 * rng.standard_normal((TRACKLETS, LATENT), np.float32)

    def noisy(rows: np.ndarray, scale: float) -> np.ndarray:
        noise = rng.standard_normal(rows.shape, np.float32)
        return (rows + scale * noise) @ spread

    return EmbeddingFile(
        noisy(centres[identities], 0.9),
        noisy(views[tracklets], 0.5),
        tuple(f"query/{i:06d}.jpg" for i in range(QUERIES)),
        tuple(f"gallery/{i:06d}.jpg" for i in range(GALLERY)),
        query_identities=identities,
        gallery_identities=owners[tracklets],
        query_tracklets=np.full(QUERIES, -1),
        gallery_tracklets=tracklets,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimension", type=int, default=4352)
    parser.add_argument("--keep", type=Path, help="folder for the file and the report")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = flags.keep or Path(scratch)
        file, out = folder / f"cityflow_{flags.dimension}.npz", folder / "report"
        if not file.exists():
            save(draw(flags.dimension), file)
        command = [sys.executable, "evaluate.py", "--rerank", "table6", "--brief"]
        command += ["--force", "--embeddings", str(file), "--out", str(out)]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((out / "report.json").read_text())
    for row in found["results"]:
        print(f"{row['label']:26} {row['seconds']:7.1f} s   mAP {row['mAP']:.3f}")
    print(
        f"{'whole program':26} {seconds:7.1f} s   processor time "
        f"{used.ru_utime + used.ru_stime:.0f} s   peak memory "
        f"{used.ru_maxrss / 2**20:.2f} GiB"
    )


if __name__ == "__main__":
    main()
