"""The converters of the documentation write what is read again."""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dex_jax.embeddings import read

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"


class Tensor(SimpleNamespace):
    """What converts like a tensor of another framework."""

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> np.ndarray:
        return self.values


def converters() -> dict[str, str]:
    """The code of each converter by the first words of its comment."""
    text = DOCUMENT.read_text()
    (block,) = (
        b
        for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "numpy.savez" in b
    )
    parts = [part for part in re.split(r"^# ", block, flags=re.MULTILINE) if part]
    return {part.split(",")[0].split(" that")[0]: "# " + part for part in parts}


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with open("features.pkl", "wb") as file:
        pickle.dump({"query": rows[:2], "gallery": rows[2:]}, file)
    return {
        "numpy": np,
        "pickle": pickle,
        "qf": rows[:2],
        "gf": rows[2:],
        "q_pids": [1, 2],
        "g_pids": [2, 1, 3],
        "q_camids": np.array([0, 0]),
        "g_camids": np.array([1, 2, -1]),
        "features": Tensor(values=rows),
        "pids": [1, 2, 2, 1, 3],
        "camids": [0, 0, 1, 2, -1],
        "num_query": 2,
        "rows": rows,
    }


@pytest.mark.parametrize(
    ("name", "labelled"),
    [("Any framework: arrays by their keys", True), ("A framework", True),
     ("A pickle", False)],
)  # fmt: skip
def test_converters_write_what_is_read(known, name, labelled):
    exec(converters()[name], known)
    file = read("embeddings.npz")
    rows = known["rows"]
    np.testing.assert_array_equal(file.query_features, rows[:2])
    np.testing.assert_array_equal(file.gallery_features, rows[2:])
    if labelled:
        assert file.gallery_identities is not None and file.gallery_cameras is not None
        assert file.gallery_identities.tolist() == [2, 1, 3]
        assert file.gallery_cameras.tolist() == [1, 2, -1]


def test_a_column_of_words(known):
    words = SimpleNamespace(to_numpy=lambda kind: np.array(["b 2", "nan", "a"], kind))
    known |= {"features": known["gf"], "frame": {"vehicle": words}}
    exec(converters()["A data frame with a column a label: labels of any kind"], known)
    np.save("query.npy", known["qf"])
    np.save("query_identities.npy", ["a", "b 2"])
    file = read(".")
    assert file.gallery_identities is not None
    assert file.gallery_identities.tolist() == [1, -1, 0]
    assert file.meta["words"]["identities"] == ["a", "b 2"]
