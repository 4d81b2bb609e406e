"""Shared fixtures: fake devices, strict arithmetic, the golden vectors."""

import os
from pathlib import Path

# Before jax starts: eight virtual CPU devices, so that mesh tests run anywhere.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import numpy as np
import pytest

from dex_jax.embeddings import save
from tests.compilation import optimised
from tests.evaluation.example import make_file

jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"

# Linux lets a process map 65,530 pieces of memory, and a compiled program is several.
# The compiler crashes at the end of them.
MAPS, MOST_MAPS = Path("/proc/self/maps"), 20_000


def let_go_of_programs(most: int = MOST_MAPS) -> None:
    """Forgets compiled programs where they have become many."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > most:
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def limit_programs():
    """Lets go of compiled programs between modules."""
    yield
    let_go_of_programs()


@pytest.fixture(scope="module")
def quick_programs():
    """Compiles what a module needs in half the time; see `tests/compilation.py`.

    For modules whose checks do not turn on the last bits of a result, nor on speed.
    """
    # Programs of the two sorts are not mixed: their last bits may differ.
    jax.clear_caches()
    with optimised(False):
        yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference vectors; tests that need it skip where it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip("the golden vectors (../shared/golden) are not on this machine")
    return GOLDEN


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs; tests that need it skip where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real images (../shared/data) are not on this machine")
    return REAL_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded numpy generator, fresh for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def vectors_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embeddings of `tests/evaluation/example.py` as a file."""
    path = tmp_path_factory.mktemp("evaluate") / "vectors.npz"
    save(make_file(), path)
    return path


@pytest.fixture
def run_evaluate(vectors_file, tmp_path, monkeypatch, capsys):
    """`evaluate.py` in an empty folder: flags to its exit code, stdout and stderr."""
    import evaluate  # it needs extras, which not every environment has

    monkeypatch.chdir(tmp_path)

    def start(
        *flags: str, embeddings: str | None = str(vectors_file)
    ) -> tuple[int, str, str]:
        source = [] if embeddings is None else ["--embeddings", embeddings]
        code = evaluate.main([*source, *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return start
