"""Every config is in range, and what is out of range is named."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from dex_jax import runs

CONFIGS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "configs").glob("*.py")
    if path.stem != "common"
)


def get(name: str = "demo"):
    return importlib.import_module(f"configs.{name}").get_config()


def test_the_eight_backbones_of_the_paper_and_the_demos_are_there():
    assert set(CONFIGS) >= {
        "demo",
        "resnet50",
        "resnet50_cbam",
        "resnet50_ibn",
        "resnet50_ibn_cbam",
        "se_resnext50",
        "efficientnet_b1",
        "efficientnet_b2",
        "efficientnet_b3",
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_in_range_and_build(name: str):
    config = get(name)
    runs.check_settings(config)
    assert config.name == name
    network, _, schedule = runs.build_training(
        config, num_classes=5, steps_per_epoch=1, shapes=True
    )
    assert network.parts.num_parts == config.model.expected_parts == 17
    first = float(np.asarray(schedule(0)))
    assert first == pytest.approx(config.optimizer.learning_rate)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, r"config\.epochs: expected a whole number of at least 1, got 0"),
        ("augment.flip", 1.5, r"config\.augment\.flip: .* at most 1, got 1\.5"),
        ("loss.margin", -1.0, r"config\.loss\.margin: .* at least 0, got -1\.0"),
        ("loss.circle_margin", 1.5, r"loss\.circle_margin: .* at most 1, got 1\.5"),
        ("loss.angular_margin", 2.0, r"loss\.angular_margin: .* at most 1\.57"),
        ("loss.angular_scale", 0.0, r"angular_scale: expected a number above 0"),
        ("model.pooling", "mean", "one of 'max', 'gem', got 'mean'"),
        ("optimizer.learning_rate", 0.0, r"learning_rate: expected a number above 0"),
        ("optimizer.learning_rate", float("nan"), "learning_rate: .* got nan"),
        ("model.trunk_split", "stage5", "one of 'none', 'stage4', 'stage3.1', got"),
        ("model.parts", ((2, 3),), "branches of three whole numbers"),
        ("model.dtype", "float16", "'float32', 'bfloat16', got 'float16'"),
        ("evaluation.scales", (0.0,), r"a tuple of numbers in \(0, 16\]"),
        ("optimizer.accumulate", 3, "a divisor of config.batch.ids_per_batch = 8"),
        ("optimizer.average", 1.0, r"a number in \[0, 1\), got 1\.0"),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: object, message: str):
    config = get()
    section, _, name = field.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[name] = value
    with pytest.raises(ValueError, match=message):
        runs.check_settings(config)


def test_all_faults_come_at_once():
    config = get()
    config.epochs = 0
    config.augment.flip = -1.0
    with pytest.raises(ValueError, match=r"epochs[\s\S]*flip"):
        runs.check_settings(config)
