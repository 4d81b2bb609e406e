"""What a config says of its data set reaches the data set."""

from pathlib import Path
from typing import Any

import pytest

from configs import common
from dex_jax import data, runs
from tests.data import fake_sets

pytestmark = pytest.mark.filterwarnings("ignore:.*instead of")


@pytest.fixture
def config(tmp_path):
    config: Any = common.get_config()
    config.data.root = str(fake_sets.cityflow(tmp_path))
    config.data.mixing = "real"
    config.data.hold_out = 2
    return config


def test_bad_images_are_left_out_and_counted_where_the_config_says_so(config):
    whole = runs.load_data(config)
    (Path(config.data.root) / "image_train" / "000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"file not found: 'image_train/000002\.jpg'"):
        runs.load_data(config)
    by_flag = runs.load_data(config, on_bad_image="skip")
    config.data.on_bad_image = "skip"
    runs.check_settings(config)
    found = runs.load_data(config)
    assert found.source == by_flag.source != whole.source
    assert any(note.startswith("1 image(s) are left out") for note in found.notes)
    with pytest.raises(ValueError, match="1 problem"):
        runs.load_data(config, on_bad_image="error")


def test_a_run_of_an_older_config_is_refused_by_name(config, tmp_path):
    config.name = "old"
    del config.data["on_bad_image"]
    runs.save_config(tmp_path / "run", config)
    with pytest.raises(
        ValueError,
        match=r"run: config\.json is of no use here:\nconfig"
        r"\.data\.on_bad_image: is missing, expected one of 'error'",
    ):
        runs.load_run(tmp_path / "run")


def test_a_run_whose_classes_are_damaged_is_refused(config, tmp_path):
    runs.save_config(tmp_path / "run", config)
    (tmp_path / "run" / "classes.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"run: classes\.json does not say num_classes"
    ):
        runs.load_run(tmp_path / "run")


def test_options_of_the_loader_and_kind_of_hold_out(config, tmp_path):
    (tmp_path / "query.txt").write_text("6 96\n6 96\n7 97\n8 98\n")
    config.data.options = {"query_labels": str(tmp_path / "query.txt")}
    assert runs.load_data(config, split="test").query.cameras.tolist() == [6, 6, 7, 8]
    config.data.hold_out_by = "scene"
    # All six vehicles were seen by the same cameras.
    with pytest.raises(ValueError, match="by: 'scene' needs identities that share no"):
        runs.load_data(config)
    config.data.hold_out_by = "place"
    with pytest.raises(ValueError, match=r"hold_out_by: expected one of 'identity'"):
        runs.check_settings(config)


def test_a_run_is_judged_by_labelled_queries_and_its_set_is_read_once(
    config, tmp_path, monkeypatch
):
    read = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: read.append(a) or load(*a, **k))
    held, split = runs.load_scored_data(config)
    assert split == "validation" and (held.query.identities >= 0).all()
    (tmp_path / "query.txt").write_text("6 96\n" * 4)
    config.data.options = {"query_labels": str(tmp_path / "query.txt")}
    config.data.hold_out = 0
    assert runs.load_scored_data(config)[1] == "test"
    assert len(read) == 2


def test_a_run_is_judged_by_the_split_of_its_config(config):
    # The test identities of CityFlow are not published: only the validation can score.
    found, split = runs.load_scored_data(config)
    assert split == "validation" and (found.query.identities >= 0).all()
    config.evaluation.split = "test"
    found, split = runs.load_scored_data(config)
    assert split == "test" and (found.query.identities < 0).all()
    config.evaluation.split = "training"
    with pytest.raises(ValueError, match=r"evaluation\.split: expected one of 'auto'"):
        runs.check_settings(config)


def test_identities_are_held_back_by_the_seed_of_the_config(config):
    def held() -> set[int]:
        return set(runs.load_data(config).query.identities.tolist())

    first = held()
    assert len(first) == config.data.hold_out == 2
    others = []
    for seed in range(1, 6):
        config.data.hold_out_seed = seed
        others.append(held())
    assert any(other != first for other in others)
    config.data.hold_out_seed = 0
    assert held() == first


def test_the_test_split_has_the_protocol_of_the_set_and_the_rule_of_the_config(config):
    config.data.remove_same_camera = False
    test = runs.load_data(config, split="test")
    assert test.protocol.name == "CityFlow-ReID"
    assert not test.protocol.remove_same_camera
    config.data.remove_same_camera = True
    held = runs.load_data(config)
    assert held.protocol.remove_same_camera and "held-back" in held.protocol.name
    for hold_out in (2, 0):
        config.data.hold_out = hold_out
        test = runs.load_data(config, split="test")
        assert test.protocol.name == "CityFlow-ReID, changed by the config"
        assert test.protocol.remove_same_camera
        assert test.protocol.top == 100
    assert runs.load_data(config).protocol == test.protocol
    with pytest.raises(ValueError, match="split: expected 'validation' or 'test'"):
        runs.load_data(config, split="train")
