"""Random galleries, drawn again from images that are described once."""

from dataclasses import asdict

import numpy as np
import pytest

import evaluate
from dex_jax.data import Protocol, ReidData
from dex_jax.data._vehicleid import load_vehicleid
from dex_jax.embeddings import EmbeddingFile, save
from dex_jax.evaluation import Row, read_sweep, run_row, sweep
from dex_jax.evaluation._draws import further_draws
from dex_jax.report import Report
from dex_jax.rerank import chain, parse
from tests.data import fake_sets
from tests.evaluation.example import make_file


def describe(data: ReidData) -> EmbeddingFile:
    """A descriptor by the name of an image alone, near its identity's centre."""
    rows = {}
    for split in (data.query, data.gallery):
        for name, identity in zip(split.names, split.identities, strict=True):
            noise = np.random.default_rng(int(name[6:-4])).normal(size=4)
            rows[name] = 1.5 * np.eye(3, 4)[identity - 50] + noise
    query, gallery = (
        np.array([rows[name] for name in split.names], np.float32)
        for split in (data.query, data.gallery)
    )
    return EmbeddingFile(
        query,
        gallery,
        data.query.names,
        data.gallery.names,
        query_identities=data.query.identities,
        gallery_identities=data.gallery.identities,
        meta={"protocol": asdict(data.protocol)},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return fake_sets.vehicleid(tmp_path_factory.mktemp("draws"))


def test_galleries_are_those_of_the_loader(root):
    data = load_vehicleid(root, seed=3)
    drawn = list(further_draws(describe(data), data.protocol))
    assert len(drawn) == 9
    for number, file in enumerate(drawn, start=1):
        alone = load_vehicleid(root, seed=3, draw=number)
        expected = describe(alone)
        assert file.query_names == alone.query.names
        assert file.gallery_names == alone.gallery.names
        np.testing.assert_array_equal(file.query_features, expected.query_features)
        np.testing.assert_array_equal(file.query_identities, alone.query.identities)


def test_figures_are_means_over_the_galleries(root):
    data = load_vehicleid(root)
    rows = (Row("baseline", chain()), Row("DBA", parse("dba(k=1)")))
    results = [run_row(describe(data), row, data.protocol) for row in rows]
    for row, result in zip(rows, results, strict=True):
        alone = []
        for draw in range(10):
            one = load_vehicleid(root, draw=draw)
            alone.append(run_row(describe(one), row, one.protocol).scored)
        means = [scored.mean_ap for scored in alone]
        firsts = [scored.cmc[0] for scored in alone]
        assert result.scored is not None and result.interval is not None
        assert result.scored.mean_ap == pytest.approx(np.mean(means))
        assert result.interval.mean == pytest.approx(np.mean(means))
        assert result.scored.cmc[0] == pytest.approx(np.mean(firsts))
        spread = result.spread()
        assert spread is not None and spread[0] == pytest.approx(np.std(means, ddof=1))
        assert spread[0] > 0
        assert spread[1][0] == pytest.approx(np.std(firsts, ddof=1))
    report = Report("t", describe(data), data.protocol, results)
    gain = report.comparisons()[1]
    first, second = (r.scored.mean_ap for r in results if r.scored)
    assert gain is not None and gain.difference.mean == pytest.approx(second - first)
    assert len(report.record()["results"][1]["random_galleries"]["mAP"]) == 10
    assert "figures are means over 10 random galleries" in " ".join(report.lines())
    grid = read_sweep("dba.k=1,2", parse("dba"))
    swept = sweep(describe(data), grid, data.protocol)
    assert swept.mean_ap[0] == pytest.approx(second)


def test_an_image_on_both_sides_cannot_be_drawn_again():
    file = make_file()
    names = (file.query_names[0], *file.gallery_names[1:])
    object.__setattr__(file, "gallery_names", names)
    with pytest.raises(ValueError, match=r"gallery_names: 'query/0.jpg' is a query"):
        next(further_draws(file, Protocol("p", draws=2)))


def test_the_program_says_mean_and_spread(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(describe(load_vehicleid(root)), tmp_path / "e.npz")
    flags = ["--embeddings", "e.npz"]
    assert evaluate.main([*flags, "--rerank", "none", "--out", "out"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "VehicleID small: same-camera images kept" in out
    assert "mean of 10 random galleries" in out
    assert "(std " in out and "std mAP, @1" in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "; std " in page and "figures are means over 10 random" in page
    (tmp_path / "track2.txt").write_text("1 2 3\n" * 9)
    assert evaluate.main([*flags, "--score", "track2.txt"]) == 0
    assert "random galleries" not in capsys.readouterr().out
