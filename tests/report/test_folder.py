"""The report folder: numbers, pictures, the page, and what the page holds."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dex_jax.report import PAGE, write_report
from dex_jax.report._page import _script_json
from tests.evaluation.example import make_file
from tests.report.conftest import EVIL, make_images

# Reports are drawn once, on one worker.
pytestmark = pytest.mark.xdist_group("report")


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    said = []
    path = tmp_path_factory.mktemp("report") / "out"
    assert write_report(report, path, say=said.append) == path
    assert said == ["embedding 60 pictures of 112 pixels"]
    return path


def test_folder_is_whole_and_alone(folder):
    figures = {"map", "cmc", "errors", "cameras", "ranks", "explain_000001"}
    expected = {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    found = {path.name for path in folder.iterdir()}
    assert found == expected | {"report.json", "queries.csv", PAGE}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_numbers_are_those_of_the_results(folder, report):
    found = json.loads((folder / "report.json").read_text())
    assert found["protocol"] == report.protocol.describe()
    assert found["sizes"] == {"query": 6, "gallery": 54, "dimension": 16}
    for row, result in zip(found["results"], report.results, strict=True):
        assert row["mAP"] == result.scored.mean_ap
        assert row["CMC"][0] == pytest.approx(result.scored.cmc[0])
        assert row["cameras"]["gallery"] == [0, 1, 2]
        assert row["verification"]["pairs"] == {"genuine": 36, "impostor": 270}
    assert "against_baseline" in found["results"][1]
    with (folder / "queries.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0][:3] == ["query", "identity", "camera"] and len(rows) == 7
    precision = report.results[1].scored.average_precision
    assert [float(row[4]) for row in rows[1:]] == pytest.approx(precision, abs=1e-6)


def page_data(page: str, name: str):
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script', page
    )
    assert found is not None
    return json.loads(found[1])


def test_page_needs_nothing_from_elsewhere(folder):
    page = (folder / PAGE).read_text(encoding="utf-8")
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?\s*(\w+:|//)", page)
    assert set(addresses) <= {"data:"}
    assert "@import" not in page
    data = page_data(page, "data")
    assert data["chains"] == ["baseline", "dex(k=3),tracklet"]
    assert len(page_data(page, "pictures")) == 6 + len(data["gallery"]["names"])
    assert data["positives"] == [6] * 6
    assert all(set(kinds) <= set("012") for chain in data["kinds"] for kinds in chain)


def test_names_cannot_break_out_of_the_page(evil_page):
    page = evil_page.read_text(encoding="utf-8")
    assert "<img src=x" not in page and "<b>" not in page.split("<style>")[0]
    assert page_data(page, "data")["query"]["names"][0] == EVIL.replace("/", "")
    assert page_data(page, "pictures") is None
    assert json.loads(_script_json(EVIL)) == EVIL and "<" not in _script_json(EVIL)


def test_failed_write_leaves_no_folder(tmp_path, report):
    class Broken(list):
        def __getitem__(self, index):
            raise ValueError("image 3 cannot be decoded")

    images = {"query": Broken(range(6)), "gallery": Broken(range(54))}
    with pytest.raises(ValueError, match="image 3 cannot be decoded"):
        write_report(replace(report, images=images), tmp_path / "out", say=lambda _: 0)
    assert not list(tmp_path.iterdir())


def test_explain_names_what_it_cannot_find(report):
    with pytest.raises(ValueError, match="query: expected a row below 6, got 6"):
        report.explain(6)
    with pytest.raises(ValueError, match="chain: expected a row below 2, got 2"):
        report.explain(0, chain=2)


def test_many_pictures_are_made_smaller(monkeypatch):
    from dex_jax.report import _page

    images = {
        "query": [np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)],
        "gallery": make_images(make_file())["gallery"],
    }
    said = []
    monkeypatch.setattr(_page, "_BUDGET", 1500)
    pictures = _page._pictures(images, [0, 1], said.append)
    assert said == ["embedding 3 pictures of 48 pixels"] and len(pictures) == 3


def test_a_report_inside_a_report_is_not_replaced_with_it(report, tmp_path):
    write_report(report, tmp_path / "out", brief=True)
    write_report(report, tmp_path / "out" / "inside", brief=True)
    with pytest.raises(FileExistsError, match=r"holds other reports too.*: inside;"):
        write_report(report, tmp_path / "out", brief=True, force=True)
    assert (tmp_path / "out" / "inside" / "report.json").is_file()
