"""What is known of a validation before the first step, and how a run is scored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import common
from dex_jax import data, runs
from dex_jax.runs._protocols import PROTOCOLS


def split(identities: list[int], cameras: list[int]) -> data.ReidSplit:
    pixels = np.zeros((len(identities), 4, 4, 3), np.uint8)
    names = tuple(f"{i}.png" for i in range(len(identities)))
    return data.ReidSplit(pixels, names, np.array(identities), np.array(cameras))


def reid(query, gallery, **rule: Any) -> data.ReidData:
    train = split([1, 1, 2], [0, 0, 0])
    protocol = data.Protocol("mine", **rule)
    return data.ReidData("set", train, split(*query), split(*gallery), protocol, "v1")


@pytest.fixture
def config() -> Any:
    config: Any = common.get_config()
    config.data.hold_out = 0
    return config


NOTHING = ([], [])
ONE_CAMERA = {"query": ([1], [3]), "gallery": ([1, 2], [3, 3])}


def test_no_query_at_all_names_the_setting_that_holds_some_back(config):
    with pytest.raises(ValueError, match="set: nothing can be validated") as error:
        runs.check_scorable(reid(NOTHING, NOTHING), config)
    for part in (
        "there are no query images, and config.data.hold_out=0 holds nothing back",
        "2 training identities back with --config.data.hold_out=N",
        "or train without validation: --config.run.validate=False",
    ):
        assert part in str(error.value)
    config.run.validate = False
    runs.check_scorable(reid(NOTHING, NOTHING), config)


@pytest.mark.parametrize(
    ("place", "mend"),
    [
        ("data", "keep them with --config.data.remove_same_camera=False"),
        ("options", "keep them without remove_same_camera in config.data.options"),
        ("", "hold other identities back with --config.data.hold_out_seed=N"),
    ],
)
def test_one_camera_names_where_its_removal_was_asked_for(config, place, mend):
    if place == "data":
        config.data.remove_same_camera = True
    elif place:
        config.data.options = {"remove_same_camera": True}
    with pytest.raises(ValueError, match="of the query's own camera") as error:
        runs.check_scorable(reid(**ONE_CAMERA, remove_same_camera=True), config)
    assert mend in str(error.value)
    runs.check_scorable(reid(**ONE_CAMERA), config)


@pytest.mark.parametrize(
    ("query", "gallery", "remove", "scorable"),
    [
        (([1], [0]), ([1], [1]), True, True),
        (([1], [0]), ([1], [0]), True, False),
        (([1], [-1]), ([1], [-1]), True, True),  # unknown cameras equal none
        (([1], [0]), ([1], [-1]), True, True),
        (([1], [0]), ([2], [1]), False, False),
        (([-1], [0]), ([-1], [1]), False, False),
        (([5, 1], [0, 0]), ([1, 2], [0, 0]), False, True),
    ],
)
def test_a_query_counts_as_the_metrics_count_it(
    config, query, gallery, remove, scorable
):
    given = reid(query, gallery, remove_same_camera=remove)
    if scorable:
        runs.check_scorable(given, config)
        return
    with pytest.raises(ValueError, match="nothing can be validated"):
        runs.check_scorable(given, config)


def test_protocols_come_back_as_they_were(tmp_path: Path):
    kept = {
        "validation": data.Protocol("a", True, top=7, ap_denominator="min"),
        "test": data.Protocol("b", draws=10, draw_seed=3, gallery_unit="tracklet"),
    }
    assert runs.load_protocols(tmp_path) == {}
    runs.save_protocols(tmp_path, kept)
    assert runs.load_protocols(tmp_path) == kept


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"test": True}, "protocols.json: test: expected an object, got True"),
        ({"test": {"name": "a", "rule": 1}}, "test: .*unexpected keyword"),
        ({"test": {"name": "a", "top": "x"}}, "test: top: expected a whole number"),
        ([], "is no list of a run's protocols: expected an object"),
    ],
)
def test_protocols_that_are_none(tmp_path: Path, content: object, message: str):
    (tmp_path / PROTOCOLS).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        runs.load_protocols(tmp_path)
