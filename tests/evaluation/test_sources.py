"""Where descriptors come from: rows a file cannot answer, runs as an ensemble."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from ml_collections import ConfigDict

from dex_jax import runs
from dex_jax.data import Protocol, ReidData, ReidSplit
from dex_jax.data._vric import load_vric
from dex_jax.embeddings import EmbeddingFile, save
from dex_jax.evaluation import TABLES, EmbeddingSource, RunSource, _run_source
from dex_jax.pipeline import normalize
from tests.data import fake_sets
from tests.evaluation.example import make_file


def means(weights, images):
    """A stand-in network: the mean colour, projected."""
    return images.mean(axis=(1, 2)) @ weights


def make_data(source: str = "v1") -> ReidData:
    rng = np.random.default_rng(0)

    def split(count: int, side: str) -> ReidSplit:
        pixels = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
        names = tuple(f"{side}/{i}" for i in range(count))
        return ReidSplit(pixels, names, np.arange(count) % 3)

    query, gallery = split(3, "query"), split(6, "gallery")
    return ReidData("set", query, query, gallery, Protocol("set rule"), source)


@pytest.fixture
def workdirs(tmp_path, monkeypatch) -> list[Path]:
    """Two runs whose networks differ, without a checkpoint on disk."""
    config = ConfigDict({"image_size": 8, "seed": 0, "data": {"source": "v1"}})
    config.evaluation = ConfigDict({"batch_size": 8, "scales": (1.0,)})

    def load_run(workdir, *, which):
        seed = int(workdir.name[-1])
        weights = np.random.default_rng(seed).normal(size=(3, 3 + seed // 5))
        return runs.Run(
            workdir=workdir,
            config=config,
            step=seed,
            apply=Partial(means, jnp.asarray(weights, jnp.float32)),
            fingerprint=f"{which}{seed}",
        )

    monkeypatch.setattr(_run_source.runs, "load_run", load_run)
    monkeypatch.setattr(
        _run_source.runs, "load_scored_data", lambda *_, **__: (make_data(), "test")
    )
    monkeypatch.setattr(_run_source.runs, "load_data", lambda *_, **__: make_data())
    return [tmp_path / "run1", tmp_path / "run2"]


def test_an_ensemble_averages_unit_vectors(workdirs, capsys):
    alone = [RunSource([workdir]).embeddings(None) for workdir in workdirs]
    both = RunSource(workdirs).embeddings(None)
    mean = alone[0].gallery_features + alone[1].gallery_features
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(both.gallery_features, mean, atol=1e-5)
    assert both.gallery_names == make_data().gallery.names
    # The third source found what the first two had described.
    assert capsys.readouterr().out.count("reusing") == 4
    assert len(list((workdirs[0] / "embeddings").iterdir())) == 2


def left_half(weights, images):
    """A network that sees the left half alone, so that a mirror image differs."""
    return images[:, :, :4].mean(axis=(1, 2)) @ weights


def test_flip_is_the_mean_of_both_sides_by_hand(workdirs, monkeypatch):
    load_run = _run_source.runs.load_run

    def one_sided(workdir, *, which):
        run = load_run(workdir, which=which)
        weights = np.random.default_rng(1).normal(size=(3, 3))
        return replace(run, apply=Partial(left_half, jnp.asarray(weights, jnp.float32)))

    monkeypatch.setattr(_run_source.runs, "load_run", one_sided)
    plain = RunSource(workdirs[:1]).embeddings(None)
    flipped = RunSource(workdirs[:1], flip=True).embeddings(None)
    pixels = normalize(np.asarray(make_data().query.images))
    weights = np.random.default_rng(1).normal(size=(3, 3))
    sides = [np.asarray(pixels)[:, :, half].mean((1, 2)) @ weights
             for half in (slice(4), slice(4, None))]  # fmt: skip
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    mean = (unit[0] + unit[1]) / 2
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(plain.query_features, unit[0], atol=1e-5)
    np.testing.assert_allclose(flipped.query_features, mean, atol=1e-5)
    assert np.abs(mean - unit[0]).max() > 1e-2


def test_memory_is_kept_while_images_are_described(workdirs, monkeypatch):
    story = []

    @contextmanager
    def kept():
        story.append("keep")
        yield True
        story.append("give back")

    describe = _run_source.describe_data

    def describing(*args, **options):
        story.append("describe")
        return describe(*args, **options)

    monkeypatch.setattr(_run_source.runs, "freed_memory_kept", kept)
    monkeypatch.setattr(_run_source, "describe_data", describing)
    RunSource(workdirs[:1]).embeddings(None)
    assert story == ["keep", "describe", "give back"]


def test_a_row_gets_its_own_scales(workdirs):
    source = RunSource(workdirs[:1])
    one, two = source.embeddings((1.0,)), source.embeddings((1.0, 1.5))
    assert source.embeddings((1.0,)) is one
    assert np.abs(one.query_features - two.query_features).max() > 1e-4
    facts = source.facts
    assert set(facts["extraction"]) == {
        f"{workdirs[0]} at scale 1",
        f"{workdirs[0]} at scale 1.5",
    }
    assert facts["runs"][0]["step"] == 1
    assert source.name == "run1" and source.protocol.name == "set rule"


def test_runs_of_other_sizes_are_only_put_side_by_side(workdirs):
    mixed = [workdirs[0], workdirs[1].with_name("run7")]
    with pytest.raises(ValueError, match=r"run7 at scale 1: has dimension 4 and .* 3"):
        RunSource(mixed).embeddings(None)
    wide = RunSource(mixed, method="concat").embeddings(None)
    assert wide.query_features.shape == (3, 7)


def test_runs_of_other_data_are_no_ensemble(workdirs, monkeypatch):
    found = iter([make_data("v1"), make_data("v2")])
    load_run = _run_source.runs.load_run

    def other_data(workdir, *, which):
        run = load_run(workdir, which=which)
        config = ConfigDict(run.config.to_dict() | {"data": {"source": workdir.name}})
        return replace(run, config=config)

    monkeypatch.setattr(_run_source.runs, "load_run", other_data)
    monkeypatch.setattr(_run_source.runs, "load_data", lambda *_, **__: next(found))
    with pytest.raises(ValueError, match=r"run2: is a run on set \(v2\) and .*run1"):
        RunSource(workdirs, split="test")


def test_a_data_set_labels_anyones_rows(tmp_path):
    data = replace(make_data(), notes=("1 image(s) are left out",))
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    source = EmbeddingSource([tmp_path / "rows.npy"], num_query=3, data=data)
    file = source.embeddings(None)
    np.testing.assert_array_equal(file.query_identities, data.query.identities)
    assert file.gallery_names == data.gallery.names
    assert source.protocol == data.protocol
    assert source.images is not None and len(source.images["gallery"]) == 6
    assert source.notes == ("labels are those of set (v1)", *data.notes)
    with pytest.raises(ValueError, match=r"rows\.npy: holds 4 query rows, set has 3"):
        EmbeddingSource([tmp_path / "rows.npy"], num_query=4, data=data)
    names = ("query/0", "query/2", "query/1")
    save(replace(file, query_names=names), tmp_path / "named.npz")
    with pytest.raises(
        ValueError, match=r"named\.npz: query_names: row 1 is 'query/2'"
    ):
        EmbeddingSource([tmp_path / "named.npz"], data=data)


def test_queries_without_identities_are_ranked_alone(workdirs, monkeypatch, tmp_path):
    data = make_data()
    split = replace(data.query, identities=np.full(3, -1))
    hidden = replace(data, query=split)
    monkeypatch.setattr(_run_source.runs, "load_data", lambda *_, **__: hidden)
    file = RunSource(workdirs[:1], split="test").embeddings(None)
    assert file.query_identities is None and file.gallery_identities is None
    assert file.gallery_tracklets is not None
    kept = replace(make_file(), query_identities=np.full(6, -1))
    save(kept, tmp_path / "e.npz")
    source = EmbeddingSource([tmp_path / "e.npz"])
    assert source.embeddings(None).query_identities is None


def test_what_was_left_out_of_the_data_is_said_with_every_result(
    workdirs, monkeypatch, tmp_path
):
    noted = replace(make_data(), notes=("2 image(s) are left out",))
    asked = {}

    def load_scored_data(config, **options):
        del config
        asked.update(options)
        return noted, "test"

    monkeypatch.setattr(_run_source.runs, "load_scored_data", load_scored_data)
    source = RunSource(workdirs, on_bad_image="skip")
    assert asked == {"on_bad_image": "skip"}
    assert source.notes[:2] == ("set, test split (v1)", *noted.notes)
    # The descriptors carry it on, to whoever evaluates them later.
    save(source.embeddings(None), tmp_path / "e.npz")
    assert EmbeddingSource([tmp_path / "e.npz"]).notes == noted.notes
    broken = replace(make_file(), meta={"notes": "many"})
    save(broken, tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b\.npz: meta: notes: expected a list"):
        EmbeddingSource([tmp_path / "b.npz"])


def test_scales_are_checked_before_work(workdirs):
    with pytest.raises(ValueError, match=r"scales: expected values in \(0, 16\]"):
        RunSource(workdirs, scales=(1.0, -0.5))


def test_a_data_set_without_queries_is_named(workdirs, monkeypatch):
    """As of a run that was trained without validation on a train-only manifest."""
    empty = ReidSplit(np.zeros((0, 8, 8, 3), np.uint8), (), np.zeros(0, np.int64))
    bare = replace(make_data(), query=empty)
    monkeypatch.setattr(
        _run_source.runs, "load_scored_data", lambda *_, **__: (bare, "test")
    )
    expected = r"run1: nothing can be ranked: the test split of set holds no query im"
    with pytest.raises(ValueError, match=expected):
        RunSource(workdirs)


def test_a_file_leaves_out_what_needs_other_scales(tmp_path):
    save(make_file(), tmp_path / "e.npz")
    source = EmbeddingSource([tmp_path / "e.npz"])
    rows, notes = source.possible(TABLES["table3"].rows)
    assert len(rows) == 13
    assert notes[0].startswith(
        "left out, needing several scales: DEx, multi-scale, k 5"
    )
    assert source.possible(TABLES["table6"].rows) == (list(TABLES["table6"].rows), [])
    with pytest.raises(ValueError, match="compares image scales"):
        source.possible(TABLES["table2"].rows)


def test_the_protocol_travels_in_the_file(tmp_path):
    path = tmp_path / "e.npz"
    save(make_file(), path)
    assert EmbeddingSource([path]).protocol.remove_same_camera
    stored = {"name": "AI City", "remove_same_camera": False, "top": 100}
    save(replace(make_file(), meta={"protocol": stored}), path)
    assert EmbeddingSource([path]).protocol == Protocol("AI City", False, 100)
    for fault, message in (
        ({"name": 5}, "name: expected a word, got 5"),
        ({"remove_same_camera": "no"}, "remove_same_camera: expected True or False"),
        ([stored], "expected an object"),
    ):
        wrong = {**stored, **fault} if isinstance(fault, dict) else fault
        save(replace(make_file(), meta={"protocol": wrong}), path)
        with pytest.raises(ValueError, match=rf"e\.npz: meta: protocol: {message}"):
            EmbeddingSource([path])
    stored["tops"] = 100
    save(replace(make_file(), meta={"protocol": stored}), path)
    with pytest.raises(ValueError, match=r"e\.npz: meta: protocol"):
        EmbeddingSource([path])


def test_labels_of_a_data_set_whose_images_are_absent(tmp_path):
    root = fake_sets.vric(tmp_path)
    data = load_vric(root, on_bad_image="later")
    sides = {"query": len(data.query), "gallery": len(data.gallery)}
    rows = {side: np.eye(count, 4) for side, count in sides.items()}
    file = EmbeddingFile(
        rows["query"], rows["gallery"], data.query.names, data.gallery.names
    )
    save(file, tmp_path / "mine.npz")
    source = EmbeddingSource([tmp_path / "mine.npz"], data=data)
    assert source.images is not None and not any("not there" in n for n in source.notes)
    (root / data.gallery.names[1]).unlink()
    source = EmbeddingSource([tmp_path / "mine.npz"], data=data)
    assert source.images is None
    assert any(
        "1 images are not there, first 'gallery_images/c1" in n for n in source.notes
    )
    found = source.embeddings(None).gallery_identities
    assert found is not None and found.tolist() == data.gallery.identities.tolist()
