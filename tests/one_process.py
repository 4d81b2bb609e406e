"""One of several processes that share a mesh: `python -m tests.one_process ...`.

Each holds its own part of the gallery; results are compared with those of one process.
"""

import os
import sys
import zipfile

if __name__ == "__main__":  # one device in each process, before jax starts
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dex_jax import metrics, neighbors, rerank

CHAINS = (
    "dba(k=3),k_reciprocal(k1=5,k2=2)",
    "dex(k=4),dba(k=3),diffusion(k=5,k_query=3),tracklet",
    "none",
)
TOP = 9


def results(query: Any, gallery: Any, labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is compared: rankings and figures, and scores `[Q, G]`."""
    found = {
        "search": neighbors.nearest_neighbors(query, gallery, k=5),
        "expanded": rerank.average_query_expansion(query, gallery, k=4),
    }
    embeddings = rerank.Embeddings(query, gallery, labels["tracklets"])
    for text in CHAINS:
        found[text] = rerank.parse(text)(embeddings, top=TOP)

    def figures(scores: jax.Array | rerank.Ranking) -> metrics.Evaluation:
        return metrics.evaluate(
            scores,
            query_identities=labels["query_identities"],
            gallery_identities=labels["gallery_identities"],
        )

    found["ranking"] = figures(found[CHAINS[0]])
    found["scores"] = figures(rerank.diffusion(query, gallery, k=5, k_query=3))
    scores = rerank.k_reciprocal(query, gallery, k1=5, k2=2)
    found["scores of sets"] = figures(scores)
    return found


def main(number: int, processes: int, port: int, kind: str, folder: Path) -> None:
    """Computes on a mesh of all processes and writes what this one holds."""
    jax.distributed.initialize(f"localhost:{port}", processes, number)
    mesh = jax.make_mesh((processes,), ("gallery",), axis_types=(AxisType[kind],))
    with np.load(folder / "input.npz") as file:
        arrays = dict(file)
    query, gallery = arrays.pop("query"), arrays.pop("gallery")
    placed = _place(gallery, mesh, number)
    assert not placed.is_fully_addressable
    found = results(query, placed, arrays)
    for name, value in found.items():
        for leaf in jax.tree.leaves(value):
            assert leaf.is_fully_replicated, name
    _refused(query, gallery, mesh, number)
    with zipfile.ZipFile(folder / f"output{number}.npz", "w") as file:
        for name, value in found.items():
            for i, leaf in enumerate(jax.tree.leaves(value)):
                with file.open(f"{name}/{i}.npy", "w") as entry:
                    np.save(entry, np.asarray(leaf))


def _place(gallery: np.ndarray, mesh: Mesh, number: int) -> jax.Array:
    """Splits the gallery over all processes; each gives its own part alone."""
    own = np.array_split(gallery, mesh.size)[number]
    sharding = NamedSharding(mesh, PartitionSpec("gallery"))
    return jax.make_array_from_process_local_data(sharding, own)


def _refused(query: np.ndarray, gallery: np.ndarray, mesh: Mesh, number: int) -> None:
    """A bad row of the last process is refused by all, with its number."""
    for value, words in ((np.nan, "NaN or infinity"), (0, "all zero")):
        bad = gallery.copy()
        bad[-2] = value
        try:
            neighbors.nearest_neighbors(query, _place(bad, mesh, number), k=2)
        except ValueError as error:
            assert words in str(error), error
            assert f"first row {len(gallery) - 2}" in str(error), error
        else:
            raise AssertionError("a bad row was taken")


if __name__ == "__main__":
    number, processes, port = map(int, sys.argv[1:4])
    main(number, processes, port, sys.argv[4], Path(sys.argv[5]))
