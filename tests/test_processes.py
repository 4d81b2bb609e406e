"""Several processes on one mesh, as on several hosts, against one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dex_jax.rerank import Embeddings, parse
from tests.compilation import QUICK_PROGRAMS
from tests.one_process import results

ROOT = Path(__file__).parents[1]
Q, G, D = 8, 64, 16
LIMIT = 600  # seconds; far above what they take


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((G, D)).astype(np.float32)
    gallery[40] = gallery[7]  # equal rows in different processes tie exactly
    return {
        "query": rng.standard_normal((Q, D)).astype(np.float32),
        "gallery": gallery,
        "tracklets": rng.integers(0, 9, G),
        "query_identities": rng.integers(0, 5, Q),
        "gallery_identities": rng.integers(0, 5, G),
    }


@pytest.fixture(scope="module")
def expected(arrays) -> dict[str, np.ndarray]:
    labels = dict(arrays)
    found = results(labels.pop("query"), labels.pop("gallery"), labels)
    return {
        f"{name}/{i}": np.asarray(leaf)
        for name, value in found.items()
        for i, leaf in enumerate(jax.tree.leaves(value))
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _run(commands: list[list[str]], folder: Path) -> None:
    """Runs Python with each of these arguments, all at the same time."""
    environment = {**os.environ, **QUICK_PROGRAMS, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=LIMIT)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]


@pytest.mark.parametrize(("processes", "kind"), [(2, "Explicit"), (4, "Auto")])
def test_processes_find_what_one_finds(processes, kind, arrays, expected, tmp_path):
    np.savez(tmp_path / "input.npz", **arrays)
    port, module = _free_port(), ("-m", "tests.one_process")
    _run(
        [
            [*module, *map(str, (number, processes, port)), kind, str(tmp_path)]
            for number in range(processes)
        ],
        ROOT,
    )
    for number in range(processes):
        with np.load(tmp_path / f"output{number}.npz") as found:
            assert set(found) == set(expected)
            for name, value in expected.items():
                if value.dtype == np.float32:
                    np.testing.assert_allclose(
                        found[name], value, rtol=2e-5, atol=2e-6, err_msg=name
                    )
                else:
                    np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_the_script_of_the_documents_runs(tmp_path):
    text = (ROOT / "docs" / "rerank.md").read_text().split("## Several hosts")[1]
    (tmp_path / "hosts.py").write_text(text.split("```python")[1].split("```")[0])
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((128, D)).astype(np.float32)
    query, tracklets = gallery[:4] + np.float32(0.1), np.arange(128) // 2
    np.save(tmp_path / "query.npy", query)
    np.save(tmp_path / "tracklets.npy", tracklets)
    for number, part in enumerate(np.split(gallery, 2)):
        np.save(tmp_path / f"gallery-{number}.npy", part)
    address = f"localhost:{_free_port()}"
    _run([["hosts.py", address, "2", str(n)] for n in range(2)], tmp_path)
    pipeline = parse("dex,dba,diffusion")
    expected = pipeline(Embeddings(query, gallery, tracklets), top=100)
    with np.load(tmp_path / "best.npz") as found:
        np.testing.assert_allclose(found["scores"], expected.scores, atol=2e-6)
        # Images that the graph does not reach have scores of 0 up to rounding.
        np.testing.assert_array_equal(found["ids"][:, :20], expected.ids[:, :20])
