"""Weights and inputs of the golden networks, regenerated from names alone."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def read(folder: Path, model: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description of a golden network and its recorded outputs."""
    description = json.loads((folder / f"{model}.json").read_text())
    with np.load(folder / f"{model}.npz") as recorded:
        return description, dict(recorded)


def _noise(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(tag.encode())).standard_normal(shape)


def weight(name: str, shape: tuple[int, ...], *, salt: str, gain: float) -> np.ndarray:
    """One entry of a state dict, by the rule of the golden README."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    r = _noise(salt + name, shape)
    if name.endswith(("running_mean", "bias")):
        r = 0.1 * r
    elif name.endswith("running_var"):
        r = np.exp(0.1 * r)
    elif len(shape) >= 2:
        r = r * np.sqrt(gain / np.prod(shape[1:]))
    else:
        r = 1 + 0.1 * r
    return r.astype(np.float32)


def tensors(description: dict[str, Any]) -> dict[str, np.ndarray]:
    """The whole state dict, each entry checked against its recorded CRC."""
    salt, gain = description["salt"], description["gain"]
    filled = {}
    for name, shape, _, crc in description["state"]:
        filled[name] = weight(name, tuple(shape), salt=salt, gain=gain)
        if not name.endswith("running_var"):
            assert zlib.crc32(filled[name].tobytes()) == crc, name
    return filled


def images(shape: list[int], *, salt: str = "dex:") -> np.ndarray:
    """The input of a case, NHWC."""
    tag = f"{salt}input/{'x'.join(map(str, shape))}"
    return _noise(tag, tuple(shape)).astype(np.float32).transpose(0, 2, 3, 1)
