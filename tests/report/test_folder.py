"""The report folder: numbers, pictures, the page, and what the page holds."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dex_jax.data import Protocol
from dex_jax.evaluation import rows_for, run_row
from dex_jax.report import PAGE, Report, _folder, write_report
from dex_jax.report._page import _script_json, best_chain
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


def test_failed_write_leaves_no_folder(tmp_path, report, monkeypatch):
    def broken(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(_folder, "save_figure", broken)
    with pytest.raises(OSError, match="No space left on device"):
        write_report(report, tmp_path / "out", say=lambda _: 0)
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


def test_what_is_shown_first_changes_something(report):
    baseline, dex = report.results
    same = replace(dex, ids=baseline.ids)
    assert best_chain([baseline]) == best_chain([baseline, same]) == 0
    assert best_chain([baseline, same, dex]) == 2
    scored = dex.scored._replace(mean_ap=0.0)
    # The best that differs, be it worse than one that does not.
    assert best_chain([baseline, replace(dex, scored=scored), same]) == 1
    bare = [replace(result, scored=None) for result in (baseline, dex, same)]
    assert best_chain(bare) == 1


def test_one_identity_has_no_interval(tmp_path, capsys):
    file = make_file(identities=1)
    file = replace(file, gallery_features=file.gallery_features[:, ::-1])
    protocol = Protocol("p", remove_same_camera=True)
    rows = rows_for("dex(k=3)").rows
    one = Report("One", file, protocol, [run_row(file, row, protocol) for row in rows])
    one.print()
    said = capsys.readouterr().out
    assert "100.0-100.0" not in said and " none " in said
    assert "all scored queries are of one identity" in " ".join(said.split())
    folder = write_report(one, tmp_path / "out", say=lambda _: None)
    found = json.loads((folder / "report.json").read_text())["results"]
    assert [row["mAP_95"] for row in found] == [None, None]
    against = found[1]["against_baseline"]
    assert against["difference"][1:] == [None, None] and against["p_value"] is None
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert page.count("<small>no interval<") == 2 and page.count("<td>none<") == 1
    assert "nan" not in page.split("<script")[0]


def test_few_identities_are_said(report):
    file = make_file(identities=5)
    protocol = Protocol("p", remove_same_camera=True)
    results = [run_row(file, row, protocol) for row in rows_for("none").rows]
    few = Report("Few", file, protocol, results)
    assert any("are of 5 identities: intervals are rough" in x for x in few.lines())
    assert not any("identities:" in line for line in report.lines())


def test_labels_are_called_by_the_users_words(report, tmp_path):
    words = {
        "identities": [f"plate {i}" for i in range(10, 16)],
        "cameras": ["gate", "7", "north"],
    }
    file = replace(report.file, meta={"words": words})
    named = replace(report, file=file)
    folder = write_report(named, tmp_path / "out", say=lambda _: None)
    rows = (folder / "queries.csv").read_text().splitlines()
    assert rows[1].startswith('"query/0.jpg","plate 10","gate",')
    page = (folder / PAGE).read_text(encoding="utf-8")
    found = page_data(page, "data")["words"]
    assert found["identities"]["3"] == "plate 13"
    assert found["tags"] == {"0": "gate", "1": "c7", "2": "north"}
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert {"gate", "north"} <= set(drawn)
    figure = named.explain(1)
    labels = [axes.get_xlabel() for axes in figure.axes]
    heads = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "query gate" in heads
    assert any(re.search(r"\nc7 · t\d+$", label) for label in labels)
