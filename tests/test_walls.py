"""Who may import whom: data flow one way, and the heart can be taken out alone."""

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import dex_jax
from dex_jax._checks import EXTRA_MODULES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dex_jax"

# The subpackages in layers: each imports only from earlier lines. Two of one line do
# not import each other.
FLOORS = (
    ("_checks", "procedural"),
    ("neighbors", "losses", "data", "models"),
    ("rerank", "pipeline"),
    ("embeddings", "metrics", "training"),
    ("runs",),
    ("evaluation",),
    ("report",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BASE = {"jax", "numpy"}
KERNELS = ("rerank", "neighbors", "metrics", "losses")
# What a subpackage may import beside the standard library, `dex_jax`, jax and numpy.
OUTSIDE = {
    "_checks": set(),
    "neighbors": set(),
    "rerank": set(),
    "metrics": set(),
    "losses": set(),
    "embeddings": {"scipy"},
    "procedural": {"PIL"},
    "data": {"PIL", "absl", "array_record", "pyarrow", "rich", "tensorflow_datasets"},
    "pipeline": {"PIL"},
    "models": {"flax", "safetensors"},
    "training": {"optax"},
    "runs": {"absl", "ml_collections", "optax", "orbax", "rich", "tensorboardX"},
    "evaluation": {"rich"},
    "report": {"jinja2", "matplotlib", "rich"},
    "__main__": {"PIL"},
}
# Modules that a fresh process must not have loaded after importing a subpackage.
HEAVY = {
    "flax",
    "jinja2",
    "matplotlib",
    "optax",
    "orbax",
    "PIL",
    "rich",
    "tensorflow",
    "tensorflow_datasets",
}
LOADS = {
    # One process for all of them: none brings anything.
    ", dex_jax.".join((*KERNELS, "embeddings")): set(),
    "procedural": {"PIL"},
    "models": {"flax", "optax", "orbax", "rich"},  # flax brings them
    "data": {"rich"},
    "pipeline": {"rich"},
    "training": {"flax", "optax", "orbax", "rich"},
    "runs": {"flax", "optax", "orbax", "rich"},
    "evaluation": {"flax", "optax", "orbax", "rich"},
    "report": {"flax", "optax", "orbax", "rich"},
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _files() -> list[Path]:
    return [
        path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE
    ] + [path for path in sorted(PACKAGE.glob("*.py")) if path.name != "__init__.py"]


def _modules(path: Path) -> set[str]:
    """Every module that a file imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            found.add(node.module)
            if node.module == "dex_jax":
                found |= {f"dex_jax.{alias.name}" for alias in node.names}
    return found


def _rooms_of(modules: set[str]) -> set[str]:
    return {m.split(".")[1] for m in modules if m.startswith("dex_jax.")} & set(FLOOR)


def _outside(modules: set[str]) -> set[str]:
    roots = {module.split(".")[0] for module in modules}
    return roots - set(sys.stdlib_module_names) - {"dex_jax"}


def test_every_room_has_its_floor():
    assert {_room(path) for path in _files()} == set(FLOOR) == set(OUTSIDE)


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_up(path: Path):
    room = _room(path)
    for other in _rooms_of(_modules(path)) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{room} imports {other}"


@pytest.mark.parametrize("room", sorted(OUTSIDE))
def test_a_room_imports_only_its_own_libraries(room: str):
    files = [path for path in _files() if _room(path) == room]
    found = set().union(*(_outside(_modules(path)) for path in files))
    assert found - BASE <= OUTSIDE[room]


def test_the_renderer_imports_no_other_part():
    files = [path for path in _files() if _room(path) == "procedural"]
    assert set().union(*(_rooms_of(_modules(path)) for path in files)) == {"procedural"}
    assert not any("jax" in _outside(_modules(path)) for path in files)


def test_only_the_programs_and_the_command_line_draw():
    users = {_room(p) for p in _files() if "report" in _rooms_of(_modules(p))}
    assert users <= {"report", "__main__"}


def test_programs_import_no_private_module():
    for name in ("train.py", "evaluate.py"):
        for module in _modules(ROOT / name):
            words = module.split(".")
            assert not any(word.startswith("_") for word in words), f"{name}: {module}"


def test_the_top_floor_and_the_folders_stay_small():
    private = [p.name for p in PACKAGE.glob("_*") if not p.name.startswith("__")]
    assert private == ["_checks"]
    for folder in [p for p in PACKAGE.rglob("*") if p.is_dir()]:
        assert len(list(folder.glob("*.py"))) <= 30, folder


def test_every_library_is_known_to_an_extra_and_every_extra_is_used():
    found = set().union(*(_outside(_modules(path)) for path in _files()))
    # jax brings scipy.
    assert found - BASE - {"scipy"} <= EXTRA_MODULES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [d.split(">")[0] for d in project["dependencies"]] == ["jax", "numpy"]
    extras = project["optional-dependencies"]
    asked = {
        word.split(">")[0].split(";")[0].strip().lower().replace("_", "-")
        for extra in ("train", "data", "report")
        for word in extras[extra]
    } - {"dex-jax[data]", "dex-jax[train]"}
    brought = {
        name.lower().replace("_", "-")
        for module in EXTRA_MODULES
        for name in packages_distributions()[module]
    }
    assert asked == brought & asked, "an extra that nothing imports"
    assert {"serve", "cuda", "weights", "lint", "bench", "test", "all"} <= set(extras)


@pytest.mark.parametrize("name", sorted(LOADS))
def test_a_fresh_process_loads_only_what_the_room_needs(name: str):
    code = f"import dex_jax; dex_jax.{name}; import sys; print(' '.join(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(out.stdout.split()) <= LOADS[name]


def test_the_package_itself_loads_nothing():
    code = "import dex_jax, sys; print(' '.join(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(out.stdout.split())
    assert not loaded & {"jax", "numpy", *HEAVY}
    assert {m for m in loaded if m.startswith("dex_jax")} == {"dex_jax"}


def test_an_unknown_part_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'rerankk'"):
        getattr(dex_jax, "rerankk".strip())
    assert not hasattr(dex_jax, "_nothing")
    assert {"rerank", "models", "metrics"} <= set(dir(dex_jax))
