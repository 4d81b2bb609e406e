"""The program on somebody's lists, and on queries that are in the gallery."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dex_jax.embeddings import EmbeddingFile, save
from tests.evaluation.example import make_file

pytestmark = pytest.mark.usefixtures("quick_programs")


BRIEF = ("--brief", "--rerank")


def test_submission_and_its_score(run_evaluate, tmp_path):
    target = tmp_path / "track2.txt"
    code, out, _ = run_evaluate(
        *BRIEF, " dex(k=3) , tracklet", "--submission", str(target)
    )
    assert code == 0 and "6 lines, chain dex(k=3),tracklet" in out
    flags = ("--force", "--submission", str(target))
    code, out, _ = run_evaluate(*BRIEF, "dex(k=3)", *flags)
    assert code == 0 and "chain dex(k=3),tracklet" in out
    lines = [line.split() for line in target.read_text().splitlines()]
    assert len(lines) == 6 and all(
        sorted(map(int, x)) == [*range(1, 55)] for x in lines
    )
    # Pulled in: the three images of a tracklet, 3 i + 1 to 3 i + 3, stay together.
    blocks = np.array(lines, int).reshape(6, 18, 3)
    assert (np.sort(blocks) - np.sort(blocks)[..., :1] == [0, 1, 2]).all()
    code, out, _ = run_evaluate("--score", str(target))
    assert code == 0
    figure = re.search(r"mAP (\d+\.\d+), CMC@1", out)
    assert figure is not None
    _, out, _ = run_evaluate(*BRIEF, "dex(k=3),tracklet", "--out", "again")
    assert f"{float(figure[1]):.1f}" in out
    target.write_text("\n".join(target.read_text().splitlines()[:-1]))
    code, _, err = run_evaluate("--score", str(target))
    assert code == 2 and "has 5 lines, expected one a query: 6" in err


def test_tracklets_are_pulled_into_somebodys_list(run_evaluate, tmp_path):
    ids = np.array([np.random.default_rng(i).permutation(54) + 1 for i in range(6)])
    np.savetxt(tmp_path / "theirs.txt", ids, fmt="%d")
    flags = (
        "--score",
        "theirs.txt",
        "--rerank",
        "tracklet",
        "--submission",
        "ours.txt",
    )
    code, out, err = run_evaluate(*flags)
    assert (code, err) == (0, "") and "wrote ours.txt: 6 lines" in out
    theirs, ours = re.findall(r"txt.*: mAP (\d+\.\d+)", out)
    code, out, _ = run_evaluate("--score", "ours.txt")
    assert f"ours.txt: mAP {ours}," in out and theirs != ours
    code, _, err = run_evaluate("--score", "theirs.txt", "--submission", "x.txt")
    assert code == 2 and "--submission: with --score, needs --rerank tracklet" in err
    code, _, err = run_evaluate("--score", "theirs.txt", "--rerank", "dex")
    assert code == 2 and "a given list is re-ranked by tracklet alone" in err


def test_a_list_is_scored_against_labels_alone(run_evaluate, tmp_path):
    lines = ["path,identity,camera,split"]
    for side, number in (("query", 2), ("gallery", 3)):
        lines += [f"{side}{i}.jpg,car {i % 2},{i},{side}" for i in range(number)]
    (tmp_path / "cars.csv").write_text("\n".join(lines))
    for line in lines[1:]:
        Image.new("RGB", (8, 8)).save(tmp_path / line.split(",")[0])
    (tmp_path / "theirs.txt").write_text("1 2 3\n1 2 3\n")
    labels = ("--data", "manifest", "--root", "cars.csv")
    code, out, err = run_evaluate("--score", "theirs.txt", *labels, embeddings=None)
    assert (code, err) == (0, "")
    # Query 0 finds rows 0 and 2, at ranks 1 and 3; query 1 finds row 1, at rank 2.
    assert f"mAP {100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2:.2f}," in out


def test_every_image_may_ask_all_others(run_evaluate, tmp_path):
    file = make_file()
    identities = np.asarray(file.gallery_identities)
    np.save(tmp_path / "all.npy", file.gallery_features)
    np.save(tmp_path / "all_identities.npy", identities)
    code, out, err = run_evaluate(
        *BRIEF, "dex", "--leave_one_out", embeddings="all.npy"
    )
    assert (code, err) == (0, "") and "54 queries, 54 gallery images" in out
    assert "each query's own image left out" in out
    report = tmp_path / "reports" / "all" / "dex" / "report.json"
    honest = json.loads(report.read_text())["results"][0]["mAP"]
    names, rows = tuple(f"{i}.jpg" for i in range(54)), file.gallery_features
    same: dict[str, Any] = {
        f"{side}_identities": identities for side in ("query", "gallery")
    }
    save(EmbeddingFile(rows, rows, names, names, **same), tmp_path / "both.npz")
    code, out, _ = run_evaluate(*BRIEF, "none", embeddings="both.npz")
    assert code == 0 and "54 of 54 queries have an image of their own name" in out
    assert "--leave_one_out" in out
    report = tmp_path / "reports" / "both" / "none" / "report.json"
    assert json.loads(report.read_text())["results"][0]["mAP"] > honest + 0.01
    code, out, _ = run_evaluate(
        *BRIEF, "none", "--leave_one_out", "--force", embeddings="both.npz"
    )
    assert code == 0 and "find themselves" not in out
    found = json.loads(report.read_text())["results"][0]["mAP"]
    assert found == pytest.approx(honest)


def test_a_submission_is_scored_once_where_galleries_are_drawn(run_evaluate, tmp_path):
    file = make_file()
    protocol = {"name": "drawn", "draws": 3}
    save(replace(file, meta={"protocol": protocol}), tmp_path / "drawn.npz")
    ids = np.tile(np.arange(1, 55), (6, 1))
    np.savetxt(tmp_path / "track2.txt", ids, fmt="%d")
    vectors = str(tmp_path / "drawn.npz")
    code, out, err = run_evaluate("--score", "track2.txt", embeddings=vectors)
    assert (code, err) == (0, "")
    assert "galleries" not in out.splitlines()[0]
