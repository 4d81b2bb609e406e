"""The program: flags, what is checked before work, and what comes out."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from dex_jax.embeddings import EmbeddingFile, load, save
from tests.evaluation.example import make_file

pytestmark = pytest.mark.usefixtures("quick_programs")


BRIEF = ("--brief", "--rerank")


def test_a_chain_from_vectors_to_report(run_evaluate, tmp_path):
    code, out, err = run_evaluate("--rerank", "dex(k=3),dba(k=3)")
    assert (code, err) == (0, "")
    assert "embeddings file: same-camera images removed, mAP over all positives" in out
    assert "6 queries, 54 gallery images; 0 queries without a positive left out" in out
    folder = tmp_path / "reports" / "vectors" / "dex-k=3+dba-k=3"
    found = json.loads((folder / "report.json").read_text())
    assert [r["chain"] for r in found["results"]] == ["none", "dex(k=3),dba(k=3)"]
    for row in found["results"]:
        assert 0 < row["mAP_95"][0] <= row["mAP"] <= row["mAP_95"][1] <= 1
        shown = f"{row['label']} +{100 * row['mAP']:.1f} "
        assert re.search(shown.replace("(", r"\(").replace(")", r"\)"), out)
    assert {"jax", "numpy", "dex_jax"} <= found["versions"].keys()


def test_a_table_shows_the_paper_beside_ours(run_evaluate, tmp_path):
    code, out, _ = run_evaluate(*BRIEF, "table5", "--out", str(tmp_path / "t5"))
    assert code == 0
    for k, figures in ((5, "76.0  86.7  91.2"), (40, "79.2  86.7  91.7")):
        assert re.search(rf"DBA, k {k} .*{figures}", out)
    assert "another data set than ours" in " ".join(out.split())


def test_a_report_is_not_overwritten_by_accident(run_evaluate, tmp_path):
    folder = tmp_path / "mine"
    assert run_evaluate(*BRIEF, "none", "--out", str(folder))[0] == 0
    before = (folder / "report.json").read_bytes()
    code, out, err = run_evaluate(*BRIEF, "none", "--out", str(folder))
    assert code == 2 and "holds a report; --force replaces it" in err
    assert "baseline" not in out and (folder / "report.json").read_bytes() == before
    assert run_evaluate(*BRIEF, "none", "--out", str(folder), "--force")[0] == 0
    (folder / "thesis.txt").write_text("x")
    code, out, err = run_evaluate(*BRIEF, "none", "--out", str(folder), "--force")
    assert code == 2 and "does not replace: thesis.txt;" in err and "mAP" not in out
    assert (folder / "thesis.txt").read_text() == "x"
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    code, _, err = run_evaluate("--rerank", "none", "--out", str(other), "--force")
    assert code == 2 and "exists and is no report" in err
    assert (other / "thesis.tex").exists()


def test_nothing_is_replaced_without_force(run_evaluate, tmp_path):
    (tmp_path / "e.npz").write_text("mine")
    (tmp_path / "t.txt").write_text("mine")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for flags, message in (
        (("--export", "e.npz"), "--export: e.npz is there already; --force replaces"),
        (("--submission", "t.txt"), "--submission: t.txt is there already"),
        (("--out", "link", "--force"), "link: is a link, which is not replaced"),
        (("--out", ".", "--force"), "report: expected the name of a folder, got '.'"),
        (
            ("--out", "new", "--export", "new/e.npz"),
            "--export: new/e.npz lies in --out, new; give each its own place",
        ),
    ):
        code, out, err = run_evaluate(*BRIEF, "none", *flags)
        assert code == 2 and message in err and out == ""
    assert (tmp_path / "e.npz").read_text() == "mine"
    assert (tmp_path / "t.txt").read_text() == "mine"
    both = ("--export", "e.npz", "--submission", "t.txt", "--out", "new", "--force")
    assert run_evaluate(*BRIEF, "none", *both)[0] == 0
    assert len(load(tmp_path / "e.npz").query_names) == 6
    assert len((tmp_path / "t.txt").read_text().splitlines()) == 6


def test_a_full_disk_leaves_no_half_files(run_evaluate, tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("mine")

    def full(self, *_, **__):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    flags = ("--submission", "t.txt", "--out", "new", "--force")
    code, out, err = run_evaluate(*BRIEF, "none", *flags)
    assert code == 2 and "No space left on device" in err and "mAP" in out
    flags = ("--out", "new", "--force")
    code, out, err = run_evaluate(*BRIEF, "none", *flags)
    assert code == 2 and "No space left on device" in err and "mAP" in out
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]
    assert (tmp_path / "t.txt").read_text() == "mine"


def test_words_of_files_are_shown_as_they_are(run_evaluate, tmp_path):
    file = make_file()
    names = ("$x^{_$.jpg", "[/docs] \x1b[31m.jpg", *file.query_names[2:])
    meta = {
        "notes": ["[/docs] \x1b]0;title\x07", "[/b]"],
        "protocol": {"name": "[/b] \x1b[2J"},
        "loss": float("nan"),
    }
    save(replace(file, query_names=names, meta=meta), tmp_path / "evil.npz")
    flags = ("--rerank", "dex(k=3)", "--explain", "0,$x^{_$.jpg", "--out", "r")
    code, out, err = run_evaluate(*flags, embeddings=str(tmp_path / "evil.npz"))
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "\x07" not in out
    assert r"[/docs] \x1b]0;title\x07" in out and r"[/b] \x1b[2J: same-camera" in out
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert found["embeddings"]["loss"] is None
    assert (tmp_path / "r" / "explain_000000.png").is_file()
    code, _, err = run_evaluate(
        *flags, "--images", "\x1b[31mabsent", embeddings="evil.npz"
    )
    assert code == 2 and "\x1b" not in err


def test_each_chain_and_table_has_a_report_of_its_own(run_evaluate, tmp_path):
    chains = ("none", "dex(k=3)", "dex(k=4)", "table5")
    for chain in chains:
        assert run_evaluate(*BRIEF, chain)[0] == 0
    assert run_evaluate(*BRIEF, "dex(k=3)", "--sweep", "dex.alpha=1,2")[0] == 0
    folders = list((tmp_path / "reports" / "vectors").iterdir())
    assert len(folders) == len(chains) + 1
    assert all((folder / "report.json").is_file() for folder in folders)
    # The same again would be lost: that one is refused.
    code, _, err = run_evaluate(*BRIEF, "table5")
    assert code == 2 and "table5: holds a report; --force replaces it" in err


def test_protocol_can_be_changed_and_is_said(run_evaluate):
    code, out, _ = run_evaluate(
        *BRIEF, "none", "--same_camera", "keep", "--top", "5",
        "--ap_denominator", "min", "--out", "kept",
    )  # fmt: skip
    assert code == 0
    assert (
        "embeddings file, changed by flags: same-camera images kept, mAP@5 over "
        "min(positives, 5)" in out
    )


def test_export_carries_the_protocol(run_evaluate, tmp_path):
    target = tmp_path / "exported.npz"
    flags = (*BRIEF, "none", "--same_camera", "keep")
    assert run_evaluate(*flags, "--export", str(target))[0] == 0
    assert load(target).meta["protocol"]["remove_same_camera"] is False
    code, out, _ = run_evaluate(*BRIEF, "none", "--out", "b", embeddings=str(target))
    assert code == 0 and "same-camera images kept" in out


def test_sweep_prints_its_grid(run_evaluate, tmp_path):
    code, out, _ = run_evaluate(
        "--rerank", "dex(k=3)", "--sweep", "dex.alpha=1,2;dex.k=2,3", "--out", "grid"
    )
    assert code == 0 and "dex.alpha / dex.k" in out
    found = json.loads((tmp_path / "grid" / "report.json").read_text())["sweep"]
    assert np.array(found["mAP"]).shape == (2, 2)
    single = run_evaluate("--rerank", "dex(k=2)", "--out", "single")[1]
    assert f"{100 * found['mAP'][1][0]:.1f}" in single
    assert (tmp_path / "grid" / "sweep.png").is_file()


def test_vectors_without_labels_are_ranked_not_scored(run_evaluate, tmp_path):
    file = make_file()
    bare = EmbeddingFile(
        file.query_features, file.gallery_features, file.query_names, file.gallery_names
    )
    save(bare, tmp_path / "bare.npz")
    code, out, err = run_evaluate(
        *BRIEF, "dex(k=3)", "--submission", "track2.txt",
        embeddings=str(tmp_path / "bare.npz"),
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "no identities, so nothing is scored" in out
    assert "the gallery has no tracklets" in " ".join(out.split())
    assert (tmp_path / "track2.txt").is_file()
    flags = ("--rerank", "dex", "--sweep", "dex.k=1,2", "--out", "other")
    code, out, err = run_evaluate(*flags, embeddings=str(tmp_path / "bare.npz"))
    assert code == 2 and "--sweep: compares scores, which needs identities" in err
    assert "dex: " not in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rerank", "dexx"), "unknown step 'dexx'; .*; did you mean dex"),
        (("--rerank", "dba,dex(q=1)"), "rerank: dex has no option 'q'; allowed are k,"),
        (("--rerank", "dex(k=[1])"), r"rerank: expected options of dex .*'k=\[1\]'"),
        (("--rerank", "tracklet,dex"), "cannot stand there"),
        (("--rerank", "table2"), "compares image scales, which needs the images"),
        (
            ("--rerank", "dex", "--sweep", "dba.alpha=1"),
            "sweep: 'dba' is not a step of 'dex'",
        ),
        (("--rerank", "dex", "--sweep", "dex.alpha=one"), "expected numbers"),
        (("--rerank", "dex", "--sweep", "alpha=1"), r"expected step.option=1,2,3"),
        (("--rerank", "table6", "--sweep", "dex.alpha=1"), "needs a chain .*'table6'"),
        (("--rerank", "none", "--explain", "99"), "row below 6, got '99'"),
        (("--rerank", "none", "--images", "nowhere"), "60 of the named images are not"),
        (("--rerank", "none", "--num_query", "3"), "only a single .npy is split"),
        (("--score", "none.txt"), "none.txt: no such submission"),
        (("--rerank", "none", "--top", "0"), "top: expected at least 1"),
        (("--workdir", "runs/a"), "--workdir: has no effect with --embeddings"),
        (("--score", "a.txt", "--sweep", "x"), "--sweep: has no effect with --score"),
        (("--score", "a.txt", "--out", "x"), "--out: has no effect with --score"),
        (("--on_bad_image", "skip"), "--on_bad_image: has no effect with --embeddings"),
        (("--rerank", ""), "rerank: "),
        (("--rerank", "dex", "--sweep", ""), "expected one or two axes, got 0"),
        (
            ("--rerank", "dex", "--sweep", "dex.k=1;dex.k=2"),
            "sweep: dex.k is named twice",
        ),
        (("--out", f"{__file__}/x"), "report: .* lies below the file"),
        (("--submission", f"{__file__}/x"), "--submission: .* lies below the file"),
        (("--export", "e.npy"), "--export: expected a name ending in .npz, got e.npy"),
        (("--export", ".npz"), "--export: expected a name ending in .npz, got .npz"),
        (
            ("--score", "a.txt", "--export", "e.npz"),
            "--export: has no effect with --score",
        ),
        (("--submission", "."), "--submission: . is a folder, expected a file's name"),
    ],
)
def test_mistakes_are_told_in_one_line_before_work(
    run_evaluate, tmp_path, flags, message
):
    code, out, err = run_evaluate(*flags)
    assert code == 2
    assert re.search(message, err) and err.startswith("evaluate.py: ")
    assert "Traceback" not in err and "mAP 1" not in out
    assert not (tmp_path / "reports").exists()


def test_bad_files_are_named(run_evaluate, tmp_path):
    code, _, err = run_evaluate("--rerank", "none", embeddings="absent.npz")
    assert code == 2 and "absent.npz: no such file" in err
    (tmp_path / "f.pkl").write_bytes(b"x")
    code, _, err = run_evaluate("--rerank", "none", embeddings="f.pkl")
    assert code == 2 and "f.pkl: is a pickle" in err
    code, _, err = run_evaluate("--rerank", "none", embeddings=None)
    assert code == 2 and "no trained run under runs/" in err
    code, _, err = run_evaluate("--images", "pictures", embeddings=None)
    assert code == 2 and "--images: belongs to --embeddings" in err


def test_words_of_another_form_are_refused(run_evaluate, capsys):
    for flags, message in (
        (("--embeddings", ""), "--embeddings: expected words between commas, got ''"),
        (("--workdir", "a,,b"), "--workdir: expected words between commas, got 'a,,b'"),
        (("--scales", "1,x"), "--scales: expected numbers, got '1,x'"),
    ):
        with pytest.raises(SystemExit):
            run_evaluate(*flags, embeddings=None)
        assert message in capsys.readouterr().err


def test_a_gallery_of_one_vehicle_has_no_threshold(run_evaluate, tmp_path):
    file = make_file(identities=1)
    save(file, tmp_path / "one.npz")
    code, out, err = run_evaluate(
        "--rerank", "dex(k=3)", embeddings=str(tmp_path / "one.npz")
    )
    assert (code, err) == (0, "") and "baseline: mAP 100.0" in out
    found = json.loads(
        (tmp_path / "reports" / "one" / "dex-k=3" / "report.json").read_text()
    )
    assert "verification" not in found["results"][0]


def test_vectors_take_the_labels_of_a_data_set(run_evaluate, tmp_path):
    names = {"train/a.png": "train,a", "q/1.png": "query,b", "g/1.png": "gallery,b"}
    names["g/2.png"] = "gallery,c"
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    rows = "".join(f"{name},{labels}\n" for name, labels in names.items())
    (tmp_path / "cars.csv").write_text(f"path,split,identity\n{rows}")
    np.save(tmp_path / "rows.npy", np.array([[1, 0], [1, 1], [1, -2]], np.float32))
    flags = ("--num_query", "1", "--data", "manifest", "--root", "cars.csv")
    flags = (*flags, "--option", "top=1", "--rerank", "none")
    code, out, err = run_evaluate(*flags, embeddings="rows.npy")
    assert (code, err) == (0, "")
    assert "cars: same-camera images kept, mAP@1 over all positives" in out
    assert "baseline: mAP 100.0" in out and "embedding 3 pictures" in out
    for wrong, message in (
        (("--num_query", "2", *flags[2:]), "holds 2 query rows, manifest has 1 query"),
        ((*flags[:4], "--out", "x"), "root: manifest lies on your disk, say where"),
        (("--num_query", "1", "--root", "x"), "--root: belongs to --data, which is"),
        ((*flags[:6], "--option", "root=x"), "--option: root is a flag of its own"),
    ):
        code, _, err = run_evaluate(*wrong, "--force", embeddings="rows.npy")
        assert code == 2 and message in err


def test_files_are_averaged_only_when_they_name_the_same_images(
    run_evaluate, vectors_file, tmp_path
):
    file = make_file(identities=5)
    save(file, tmp_path / "other.npz")
    both = f"{vectors_file},{tmp_path / 'other.npz'}"
    code, _, err = run_evaluate("--rerank", "none", embeddings=both)
    assert code == 2 and "other.npz: holds 5 query images and" in err
    save(make_file(), tmp_path / "other.npz")
    code, out, _ = run_evaluate(*BRIEF, "none", "--out", "both", embeddings=both)
    assert code == 0 and "baseline: mAP" in out


def test_flags_reach_the_networks_that_describe(run_evaluate, monkeypatch):
    asked = {}

    def source(workdirs, **options):
        asked.update(options, workdirs=workdirs)
        raise ValueError("seen")

    monkeypatch.setattr(evaluate.evaluation, "RunSource", source)
    words = "--workdir a,b --which last --split test --scales 0.9,1.1 --flip"
    more = "--fuse concat --batch_size 3 --on_bad_image skip"
    assert run_evaluate(*words.split(), *more.split(), embeddings=None)[2].endswith(
        "seen\n"
    )
    assert asked == {
        "workdirs": [Path("a"), Path("b")],
        "which": "last",
        "split": "test",
        "scales": (0.9, 1.1),
        "flip": True,
        "method": "concat",
        "batch_size": 3,
        "on_bad_image": "skip",
    }
    run_evaluate("--workdir", "a", embeddings=None)
    assert (asked["which"], asked["split"], asked["flip"]) == ("best", None, False)
