"""Weights and inputs of the golden networks, regenerated from names alone."""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax import models


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


# Compiling takes longer than running once: halve it.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


class Errors(NamedTuple):
    """Largest errors, relative to the largest value of what is compared."""

    feature: float
    statistics: float


def check(
    folder: Path, model: str, name: str, case: str, *, wide: bool, **options: Any
) -> Errors:
    """Runs one golden case; in float64 (`wide`) it must be exact."""
    description, recorded = read(folder, model)
    about = next(c for c in description["cases"] if c["case"] == case)
    network = models.backbone(name, last_stride=about["last_stride"], **options)
    report = models.load_torch_weights(network, tensors(description))
    assert not report.missing
    assert not report.unexpected
    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        dtype = jnp.float64 if wide else jnp.float32
        graphdef, params, stats = models.split(network)
        params, stats = jax.tree.map(lambda a: a.astype(dtype), (params, stats))
        x = jnp.asarray(images(about["input_shape"]), dtype)
        run = jax.jit(
            models.apply,
            static_argnums=0,
            static_argnames="train",
            compiler_options=QUICK_COMPILE,
        )
        y, stats = run(graphdef, params, stats, x, train=about["mode"] == "train")
        y = np.asarray(y).transpose(0, 3, 1, 2)
        after = models.torch_tensors(models.merge(graphdef, params, stats))
    prefix = f"{case}/after/"
    feature = max(
        np.abs(y.max((2, 3)) - recorded[f"{case}/gmp"]).max(),
        np.abs(y[:, ::16] - recorded[f"{case}/feat_c16"]).max(),
    )
    statistics = [
        np.abs(after[key.removeprefix(prefix)] - value).max() / np.abs(value).max()
        for key, value in recorded.items()
        if key.startswith(prefix)
    ]
    errors = Errors(feature / about["feature_absmax"], max(statistics, default=0.0))
    if wide:
        assert errors.feature < 5e-7
        assert errors.statistics < 5e-7
    return errors
