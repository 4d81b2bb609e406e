import json
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dex_jax import data
from dex_jax.data import _procedural
from dex_jax.data._procedural import load_procedural
from dex_jax.procedural import RECIPES, draw_all, plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def tiny(folder):
    return data.load("procedural_vehicles", size="tiny", data_dir=folder)


@pytest.fixture
def never_drawn(monkeypatch):
    def draw_all(*args, **kwargs):
        raise AssertionError("drawn although it was kept")

    monkeypatch.setattr(_procedural, "draw_all", draw_all)


def _place(folder):
    return folder / "procedural_vehicles" / "tiny" / "1.2.0"


def test_the_tiny_set_is_complete(tiny):
    assert len(tiny.train) > 100
    assert len(tiny.gallery) > 60
    assert len(tiny.query) >= 12
    assert tiny.source.startswith("procedural_vehicles-1.2.0-tiny-seed0-")
    assert "mAP@100" in tiny.protocol.describe()
    for split in (tiny.train, tiny.query, tiny.gallery):
        image = split.images[len(split) - 1]
        assert image.shape == (40, 40, 3)
        assert image.dtype == np.uint8
        assert image.std() > 5
        with pytest.raises(IndexError):
            split.images[len(split)]
    assert "tensorflow" not in sys.modules


def test_labels_stand_in_the_names(tiny):
    for split in (tiny.train, tiny.query, tiny.gallery):
        for i in range(0, len(split), 17):
            _, name = split.names[i].split("/")
            identity, camera, tracklet, _ = name.split("_")
            assert int(identity) == split.identities[i]
            assert int(camera[1:]) == split.cameras[i]
            assert int(tracklet[1:]) == split.tracklets[i]


def test_it_is_drawn_once_and_read_back_the_same(tiny, folder, never_drawn):
    again = load_procedural(size="tiny", data_dir=folder)
    assert again.source == tiny.source
    assert again.gallery.names == tiny.gallery.names
    for i in (0, 50):
        np.testing.assert_array_equal(again.train.images[i], tiny.train.images[i])


def test_in_memory_it_is_the_same_set(tiny):
    kept = load_procedural(size="tiny", in_memory=True, progress=False)
    assert kept.source == tiny.source
    for side in ("train", "query", "gallery"):
        a, b = getattr(kept, side), getattr(tiny, side)
        np.testing.assert_array_equal(a.identities, b.identities)
        np.testing.assert_array_equal(a.images[len(a) - 1], b.images[len(b) - 1])


def test_the_number_of_workers_changes_nothing():
    jobs = plan(RECIPES["tiny"], 0)[:4]
    alone = list(draw_all(jobs, workers=1))
    together = list(draw_all(jobs, workers=2))
    assert [images for _, images in alone] == [images for _, images in together]
    assert [job for job, _ in together] == jobs


def test_workers_are_silent(capfd):
    list(draw_all(plan(RECIPES["tiny"], 0)[:2], workers=2))
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_dies_is_an_error(capfd):
    jobs = plan(RECIPES["tiny"], 0)[:1]
    broken = [job._replace(vehicle=None) for job in jobs]
    with pytest.raises(RuntimeError, match=r"worker that drew train/0000.* ended"):
        list(draw_all(broken, workers=2))
    assert "Error" in capfd.readouterr().err  # its own words


def test_an_interrupted_build_leaves_nothing_to_be_taken_for_good(
    tmp_path, monkeypatch, tiny
):
    def interrupted(jobs, *, workers):
        for number, drawn in enumerate(draw_all(jobs, workers=workers)):
            if number == 3:
                raise KeyboardInterrupt
            yield drawn

    with monkeypatch.context() as patch:
        patch.setattr(_procedural, "draw_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_procedural(size="tiny", data_dir=tmp_path, progress=False)
    assert not _place(tmp_path).exists()
    # A process that was killed leaves such a folder.
    left = _place(tmp_path).parent / "incomplete.ABC123_1.2.0"
    left.mkdir(parents=True)
    again = load_procedural(size="tiny", data_dir=tmp_path, progress=False)
    np.testing.assert_array_equal(again.query.images[0], tiny.query.images[0])
    assert not left.exists()


def _copy(tiny, folder, tmp_path):
    target = _place(tmp_path)
    target.mkdir(parents=True)
    for file in _place(folder).iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("fault", ["cut short", "gone", "no description"])
def test_a_damaged_store_is_named(fault, tiny, folder, tmp_path, never_drawn):
    place = _copy(tiny, folder, tmp_path)
    records = next(place.glob("*gallery*"))
    if fault == "cut short":
        records.write_bytes(records.read_bytes()[:-2000])
    elif fault == "gone":
        records.unlink()
    else:
        (place / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match="damaged; delete that folder") as error:
        load_procedural(size="tiny", data_dir=tmp_path)
    assert str(place) in str(error.value)


def test_a_store_of_another_recipe_is_refused(tiny, folder, tmp_path, never_drawn):
    place = _copy(tiny, folder, tmp_path)
    (place / "metadata.json").write_text(json.dumps({"digest": "abc"}))
    with pytest.raises(ValueError, match=r"another recipe .abc, expected"):
        load_procedural(size="tiny", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("size", "huge", "size: expected one of 'tiny', 'demo', 'large', got 'huge'"),
        ("seed", -1, "seed: expected at least 0, got -1"),
        ("seed", 1.5, "seed: expected a whole number, got 1.5"),
        ("workers", 0, "workers: expected at least 1, got 0"),
        ("colour", "red", "colour: procedural_vehicles has no such option"),
    ],
)
def test_options_out_of_range_are_refused(option, value, match, tmp_path, never_drawn):
    with pytest.raises(ValueError, match=match):
        data.load("procedural_vehicles", data_dir=tmp_path, **{option: value})


def test_a_folder_that_cannot_be_written_is_named(tmp_path, never_drawn):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="data_dir: expected a folder, got the file"):
        load_procedural(size="tiny", data_dir=file)
    with pytest.raises(ValueError, match=r"data_dir: cannot write to .*in_memory"):
        load_procedural(size="tiny", data_dir=file / "below")


def test_without_the_store_packages_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record", None)
    with pytest.raises(ModuleNotFoundError, match=r"array_record is.*in_memory=True"):
        load_procedural(size="tiny", data_dir=tmp_path)


def test_the_folder_comes_from_the_environment(folder, tiny, monkeypatch, never_drawn):
    monkeypatch.setenv("DEX_JAX_DATA", str(folder))
    assert load_procedural(size="tiny").source == tiny.source


def test_a_store_of_earlier_versions_is_opened(tiny, tmp_path, never_drawn):
    files = {
        name: image
        for job, images in draw_all(plan(RECIPES["tiny"], 0), workers=1)
        for name, image in zip(job.names, images, strict=True)
    }

    class ProceduralVehicles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Wrote labels of 32 bits and no domain."""

        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="tiny")]
        url_infos = None

        def _info(self):
            features = {
                "image": tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                ),
                **dict.fromkeys(("identity", "camera", "tracklet"), np.int32),
                "name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                metadata=tfds.core.MetadataDict(digest=tiny.source.split("-")[-1]),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: object):
            del dl_manager
            sides = ("train", "query", "gallery")
            return {s: self._generate_examples(getattr(tiny, s)) for s in sides}

        def _generate_examples(self, split):
            for i, name in enumerate(split.names):
                yield (
                    i,
                    {
                        "image": files[name],
                        "identity": split.identities[i],
                        "camera": split.cameras[i],
                        "tracklet": split.tracklets[i],
                        "name": name,
                    },
                )

    ProceduralVehicles(
        config="tiny", data_dir=tmp_path, file_format="array_record"
    ).download_and_prepare()
    data = load_procedural(size="tiny", data_dir=tmp_path)
    assert data.source == tiny.source
    np.testing.assert_array_equal(data.gallery.identities, tiny.gallery.identities)
    for i in (0, 50):
        np.testing.assert_array_equal(data.train.images[i], tiny.train.images[i])


def test_another_seed_is_kept_beside_the_first(tmp_path):
    other = load_procedural(size="tiny", seed=7, data_dir=tmp_path, progress=False)
    assert "tiny-seed7" in other.source
    assert (tmp_path / "procedural_vehicles" / "tiny-seed7" / "1.2.0").is_dir()
