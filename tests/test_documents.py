"""The commands of README and docs run as they stand there, at tiny sizes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dex_jax.embeddings import EmbeddingFile, save
from tests.compilation import QUICK_PROGRAMS
from tests.data import fake_sets

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/data.md", "docs/training.md")
# Settings that make any experiment of `configs/` small, as the environment gives them.
TINY = (
    "--config.image_size=32",
    "--config.model.name=resnet_slim",
    "--config.model.options={'width': 2}",
    "--config.model.trunk_split=none",
    "--config.model.dim=4",
    "--config.model.parts=((2, 1, 1),)",
    "--config.model.expected_parts=0",
    "--config.batch.ids_per_batch=2",
    "--config.batch.images_per_id=2",
    "--config.epochs=1",
    "--config.data.hold_out=3",
    "--config.data.synthetic_identities=2",
    "--config.evaluation.scales=(1.0,)",
)
pytestmark = pytest.mark.xdist_group("documents")


def commands(name: str) -> Iterator[list[str]]:
    """The words of every command in a document's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for command in filter(str.strip, line.split("&&")):
            yield shlex.split(command)


def every_document() -> set[str]:
    found = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return {p.relative_to(ROOT).as_posix() for p in found if "```sh" in p.read_text()}


def prepare(folder: Path) -> None:
    """Lays what the commands name into an empty folder: programs and data."""
    for name in ("train.py", "evaluate.py", "configs"):
        (folder / name).symlink_to(ROOT / name)
    fake_sets.cityflow(folder / "AIC20_ReID")
    fake_sets.simulation(folder / "AIC20_ReID_Simulation")
    lists = fake_sets.vehicleid(folder) / "train_test_split"
    shutil.copy(lists / "test_list_800.txt", lists / "test_list_2400.txt")
    sides = {"train": range(8), "test": range(8, 12)}
    cars = [
        f"{s}/{i}_c{c}.jpg" for s, ids in sides.items() for i in ids for c in (1, 2)
    ]
    fake_sets.images(folder / "cars", cars)
    # The sizes of the tiny drawn set under the network above: programs are shared.
    rng, sizes = np.random.default_rng(0), {"query": 19, "gallery": 128}
    fields = {}
    for side, size in sizes.items():
        fields[f"{side}_features"] = rng.normal(size=(size, 12)).astype(np.float32)
        fields[f"{side}_names"] = tuple(f"{side}/{i}.jpg" for i in range(size))
        fields[f"{side}_identities"] = np.arange(size) % 8
        fields[f"{side}_tracklets"] = np.arange(size) % 16
    save(EmbeddingFile(**fields), folder / "embeddings.npz")


def test_every_document_with_commands_is_here():
    assert every_document() == set(DOCUMENTS)


def test_the_commands_that_are_not_run_are_known():
    known = {"pip install -e .[all]", "pip install -e .[test]", "pytest -q -n 2"}
    found = {
        " ".join(w) for name in DOCUMENTS for w in commands(name) if w[0] != "python"
    }
    assert found == known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_run_in_their_order(document: str, tmp_path: Path):
    prepare(tmp_path)
    for words in [w for w in commands(document) if w[0] == "python"]:
        size = ["--config.data.size=tiny"] if "configs/demo.py" in words else []
        environment = os.environ | {
            "DEX_JAX_DATA": str(tmp_path / "sets"),
            "DEX_JAX_TRAIN_FLAGS": shlex.join([*TINY, *size]),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XLA_FLAGS": "",
            **QUICK_PROGRAMS,
        }
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        assert "Traceback" not in said, said
