"""Tries the base install: run it where the wheel alone is installed, jax and numpy.

`python tests/alone.py`, in a folder without the sources.
"""

import importlib
import re
import sys
import tempfile
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dex_jax
from dex_jax import embeddings, losses, metrics, neighbors, rerank

EXTRAS = {
    "data": "data",
    "evaluation": "train",
    "models": "train",
    "pipeline": "data",
    "report": "report",
    "runs": "train",
    "training": "train",
}


def check(holds: bool, what: str) -> None:
    """Stops with a message unless something holds; `-O` does not take it away."""
    if not holds:
        sys.exit(f"error: {what}")
    print(f"ok: {what}")


def try_ranking() -> None:
    """Re-ranks two vehicles of which plain cosine confuses one image."""
    # Degrees on a circle: vehicle 0 from 0 to 24, vehicle 1 at 40 and 52.
    angles = np.deg2rad([0.0, 8.0, 16.0, 24.0, 40.0, 52.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    gallery, query = rows[1:], rows[:1]
    found = neighbors.nearest_neighbors(query, gallery, k=3)
    check(found.ids.tolist() == [[0, 1, 2]], "neighbours are searched")
    tracks = np.array([0, 0, 0, 1, 1])
    given = rerank.Embeddings(query, gallery, tracks)
    for chain in (
        "dex(k=2),dba(k=2),diffusion(k=3,k_query=2)",
        "k_reciprocal(k1=3,k2=2)",
    ):
        best = rerank.parse(chain)(given, top=3)
        check(
            set(best.ids[0].tolist()) == {0, 1, 2}, f"{chain} ranks the vehicle first"
        )
    result = metrics.evaluate(
        rerank.cosine_similarity(query, gallery),
        query_identities=np.array([0]),
        gallery_identities=np.array([0, 1, 0, 1, 1]),
    )
    # Hits at ranks 1 and 3: (1/1 + 2/3) / 2.
    check(abs(float(result.mean_ap) - 5 / 6) < 1e-6, "metrics score it")
    loss = losses.label_smoothed_cross_entropy(jnp.zeros((1, 4)), jnp.array([1]))
    check(abs(float(loss) - np.log(4)) < 1e-6, "losses are computed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npz"
        file = embeddings.EmbeddingFile(query, gallery, ("q",), tuple("abcde"))
        embeddings.save(file, path)
        same = np.array_equal(embeddings.read(path).gallery_features, gallery)
        check(same, "an embeddings file is written and read")


def try_extras() -> None:
    """Each part that needs an extra says in one line which one."""
    for part, extra in EXTRAS.items():
        said = "nothing"
        try:
            importlib.import_module(f"dex_jax.{part}")
        except ModuleNotFoundError as error:
            said = str(error)
        wanted = rf"\w+ is not installed; pip install 'dex_jax\[{extra}\]' brings it"
        check(re.fullmatch(wanted, said) is not None, f"dex_jax.{part} says: {said}")


def main() -> None:
    """Checks what is installed, then uses it."""
    plain = [word for word in requires("dex_jax") or [] if "extra ==" not in word]
    names = sorted(re.split(r"[<>=!~\[; ]", word)[0] for word in plain)
    check(names == ["jax", "numpy"], f"the base install asks for {', '.join(names)}")
    check("site-packages" in str(dex_jax.__file__), "the installed package is used")
    for file in ("py.typed", "report/templates/report.html"):
        check((files("dex_jax") / file).is_file(), f"the wheel holds {file}")
    try_ranking()
    try_extras()


if __name__ == "__main__":
    main()
