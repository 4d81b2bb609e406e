"""The range of every setting of a config, checked before anything is built."""

import math
import sys
from collections.abc import Callable
from typing import Any

# An `ml_collections.ConfigDict`, whose fields no type checker knows.
Config = Any


# What a program can hold at all: a larger number is a slip or a damaged file.
_MOST = 2**31 - 1


def _count(least: int, most: int = _MOST) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"a whole number of at least {least}"
        + ("" if most == _MOST else f" and at most {most}"),
        lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
    )


def _number(
    low: float, high: float = math.inf, *, open_low: bool = False
) -> tuple[str, Callable[[Any], bool]]:
    text = f"a number {'above' if open_low else 'of at least'} {low:g}"
    text += "" if high == math.inf else f" and at most {high:g}"
    return (
        text,
        lambda v: (
            isinstance(v, (int, float))
            and not isinstance(v, bool)
            and abs(v) <= sys.float_info.max  # not NaN, and not beyond any float
            and (v > low if open_low else v >= low)
            and v <= high
        ),
    )


def _word(*choices: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(map(repr, choices))}", lambda v: v in choices


def _cuts(value: Any) -> bool:
    def whole(c: Any) -> bool:
        return isinstance(c, int) and not isinstance(c, bool) and c >= 1

    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(
            isinstance(b, tuple) and len(b) == 3 and all(map(whole, b)) for b in value
        )
    )


def _scales(value: Any) -> bool:
    fits = _number(0, 16, open_low=True)[1]
    return isinstance(value, tuple) and len(value) > 0 and all(map(fits, value))


_TEXT = ("text", lambda v: v is None or isinstance(v, str))
_OPTIONS = ("names with values", lambda v: hasattr(v, "items"))
_SWITCH = ("True or False", lambda v: isinstance(v, bool))
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": _TEXT,
    "seed": _count(0, 2**64),
    "epochs": _count(1),
    "image_size": _count(16, 2**14),
    "data.name": _TEXT,
    "data.root": _TEXT,
    "data.data_dir": _TEXT,
    "data.size": _TEXT,
    "data.options": _OPTIONS,
    "data.synthetic_root": _TEXT,
    "data.remove_same_camera": _SWITCH,
    "data.hold_out": _count(0),
    "data.hold_out_seed": _count(0, 2**64),
    "data.hold_out_by": _word("identity", "scene"),
    "data.on_bad_image": _word("error", "skip"),
    "data.expected_identities": _count(1),
    "data.mixing": _word("real", "balanced", "full"),
    "data.synthetic_identities": _count(1),
    "batch.ids_per_batch": _count(2),
    "batch.images_per_id": _count(2),
    "augment.flip": _number(0, 1),
    "augment.contrast": _number(0, 1),
    "augment.brightness": _number(0, 1),
    "augment.erase": _number(0, 1),
    "model.name": _TEXT,
    "model.pretrained": _TEXT,
    "model.options": _OPTIONS,
    "model.parts": ("branches of three whole numbers, each at least 1", _cuts),
    "model.expected_parts": _count(0),
    "model.trunk_split": _word("none", "stage4", "stage3.1"),
    "model.dim": _count(1, 2**20),
    "model.last_stride": ("1 or 2", lambda v: v in (1, 2)),
    "model.pooling": _word("max", "gem"),
    "model.dtype": _word("float32", "bfloat16"),
    "loss.epsilon": _number(0, 1),
    "loss.margin": _number(0),
    "loss.soft_margin": _SWITCH,
    "loss.cross_entropy_weight": _number(0),
    "loss.triplet_weight": _number(0),
    "loss.circle_weight": _number(0),
    "loss.circle_margin": _number(0, 1),
    "loss.circle_scale": _number(0, open_low=True),
    "loss.arcface": _SWITCH,
    "loss.angular_margin": _number(0, math.pi / 2),
    "loss.angular_scale": _number(0, open_low=True),
    "optimizer.name": _word("adam", "adamw"),
    "optimizer.learning_rate": _number(0, open_low=True),
    "optimizer.schedule": _word("exponential", "cosine", "constant"),
    "optimizer.decay": _number(0),
    "optimizer.warmup_epochs": _number(0),
    "optimizer.weight_decay": _number(0),
    "optimizer.clip_norm": _number(0),
    "optimizer.accumulate": _count(1),
    "optimizer.average": ("a number in [0, 1)", lambda v: _number(0)[1](v) and v < 1),
    "evaluation.batch_size": _count(1, 2**20),
    "evaluation.split": _word("auto", "validation", "test"),
    "evaluation.every_epochs": _count(0),
    "evaluation.scales": ("a tuple of numbers in (0, 16]", _scales),
    "run.checkpoint_minutes": _number(0),
    "run.log_steps": _count(1),
    "run.workers": _count(1, 2**12),
    "run.validate": _SWITCH,
    "run.shard_parameters": _SWITCH,
    "run.remat": _SWITCH,
}
# Younger than runs that are still read; they mean what they meant.
_YOUNG = {"run.validate"}


def check_settings(config: Config) -> None:
    """Checks every setting of a config at once.

    Raises:
        ValueError: settings that are missing, out of range, or do not go together;
            names each with its value and what was expected.
    """
    faults: list[str] = []
    broken: dict[str, str] = {}
    for name, (expected, fits) in _RULES.items():
        section, _, field = name.rpartition(".")
        holder = config.get(section, {}) if section else config
        if not hasattr(holder, "items"):
            broken[section] = f"config.{section}: expected settings, got {holder!r:.80}"
        elif field not in holder:
            if name not in _YOUNG:
                faults.append(f"config.{name}: is missing, expected {expected}")
        elif not fits(holder[field]):
            got = f"{holder[field]!r:.200}"
            faults.append(f"config.{name}: expected {expected}, got {got}")
    faults += broken.values()
    if not faults and config.batch.ids_per_batch % config.optimizer.accumulate:
        faults.append(
            "config.optimizer.accumulate: expected a divisor of "
            f"config.batch.ids_per_batch = {config.batch.ids_per_batch}, got "
            f"{config.optimizer.accumulate}"
        )
    if faults:
        raise ValueError("\n".join(faults))


def setting_names(config: Config, prefix: str = "config") -> list[str]:
    """Every field of a config, with its sections: `config.data.root`."""
    names = []
    for name, value in config.items():
        inner = f"{prefix}.{name}"
        names += setting_names(value, inner) if hasattr(value, "items") else [inner]
    return names
