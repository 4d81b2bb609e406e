"""Several processes on one mesh, as on several hosts, against one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.compilation import QUICK_PROGRAMS
from tests.one_process import results

ROOT = Path(__file__).parents[1]
Q, G, D = 8, 64, 16


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


@pytest.mark.parametrize(("processes", "kind"), [(2, "Explicit"), (4, "Auto")])
def test_processes_find_what_one_finds(processes, kind, arrays, expected, tmp_path):
    np.savez(tmp_path / "input.npz", **arrays)
    port, environment = _free_port(), {**os.environ, **QUICK_PROGRAMS}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.one_process",
                *(str(number), str(processes), str(port), kind, str(tmp_path)),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output[-4000:]
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
