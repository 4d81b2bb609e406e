"""Who may import whom: the heart of the package can be taken out and used alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dex_jax"

# First parts of the modules that each station may import beside the standard library.
KERNELS = {"jax", "numpy", "chex", "dex_jax"}
FORBIDDEN = {
    "rerank": ("flax", "optax", "tensorflow", "tensorflow_datasets", "matplotlib"),
    "neighbors": ("flax", "optax", "tensorflow", "tensorflow_datasets", "matplotlib"),
    "metrics": ("flax", "optax", "tensorflow", "tensorflow_datasets", "matplotlib"),
    "losses": ("flax", "optax", "tensorflow", "tensorflow_datasets", "matplotlib"),
    "models": ("tensorflow", "tensorflow_datasets", "matplotlib", "PIL"),
    "data": ("tensorflow", "flax", "matplotlib"),
    "report": ("tensorflow", "flax", "tensorflow_datasets"),
    "training": ("tensorflow", "tensorflow_datasets", "matplotlib", "PIL"),
}


def _sources(name: str) -> list[Path]:
    folder = PACKAGE / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{name}.py"]


def _imported(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots - set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", ["rerank", "neighbors", "metrics", "losses"])
def test_kernels_import_jax_numpy_and_chex_alone(name: str):
    for path in _sources(name):
        assert _imported(path) <= KERNELS, path


def test_tensorflow_is_named_nowhere():
    for path in PACKAGE.rglob("*.py"):
        assert "tensorflow" not in _imported(path), path


@pytest.mark.parametrize("root", ["matplotlib", "jinja2"])
def test_only_report_draws(root: str):
    users = {p for p in PACKAGE.rglob("*.py") if root in _imported(p)}
    assert all(p.is_relative_to(PACKAGE / "report") for p in users), users


@pytest.mark.parametrize("root", ["tensorflow_datasets", "array_record", "grain"])
def test_only_data_knows_the_stores(root: str):
    users = {p for p in PACKAGE.rglob("*.py") if root in _imported(p)}
    assert all(p.is_relative_to(PACKAGE / "data") for p in users), users


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_a_fresh_process_loads_only_what_the_station_needs(name: str):
    code = f"import dex_jax.{name}, sys; print(' '.join(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(out.stdout.split())
    assert loaded.isdisjoint(FORBIDDEN[name])
