"""Layers against numpy, with random weights: nothing here is compared with itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dex_jax import models
from dex_jax.models._efficientnet import InvertedResidual
from dex_jax.models._layers import (
    BatchNorm,
    ConvBlockAttention,
    InstanceBatchNorm,
    SqueezeExcite,
)
from dex_jax.models._resnet import Bottleneck
from dex_jax.models._start import initialise

BATCH, HEIGHT, WIDTH, CHANNELS = 3, 4, 5, 6


@pytest.fixture
def maps(rng) -> np.ndarray:
    """Feature maps `[B, H, W, C]` whose images and channels differ in mean and size."""
    shift = rng.normal(size=(BATCH, 1, 1, CHANNELS))
    return (rng.normal(size=(BATCH, HEIGHT, WIDTH, CHANNELS)) + shift).astype("f4")


def randomised(make: Callable[[], Any], rng: np.random.Generator) -> Any:
    """A layer whose every number is drawn, running variances above zero."""
    layer = initialise(make, 0)
    for path, value in nnx.iter_graph(layer):
        if isinstance(value, nnx.Variable):
            drawn = rng.normal(size=value[...].shape).astype("f4")
            value.set_value(
                jnp.asarray(np.abs(drawn) + 0.5 if path[-1] == "var" else drawn)
            )
    return layer


def training(layer: Any) -> Any:
    return nnx.view(layer, use_running_average=False)


def numbers(variable: Any) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_running_statistics_after_a_step_by_hand(maps, rng, momentum):
    layer = randomised(lambda: BatchNorm(CHANNELS, momentum=momentum), rng)
    mean, var = numbers(layer.mean), numbers(layer.var)
    view = training(layer)
    y = view(jnp.asarray(maps))
    flat = maps.reshape(-1, CHANNELS).astype(np.float64)
    count = len(flat)
    # torch averages in the variance over n - 1, and divides by the one over n.
    unbiased = flat.var(axis=0) * count / (count - 1)
    np.testing.assert_allclose(
        numbers(view.mean), momentum * mean + (1 - momentum) * flat.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        numbers(view.var), momentum * var + (1 - momentum) * unbiased, rtol=1e-5
    )
    value = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    value = value * numbers(layer.scale) + numbers(layer.bias)
    np.testing.assert_allclose(y.reshape(-1, CHANNELS), value, atol=1e-5)


def test_evaluation_uses_running_statistics_and_changes_none(maps, rng):
    layer = randomised(lambda: BatchNorm(CHANNELS), rng)
    mean, var = numbers(layer.mean), numbers(layer.var)
    y = layer(jnp.asarray(maps))
    value = (maps - mean) / np.sqrt(var + 1e-5)
    value = value * numbers(layer.scale) + numbers(layer.bias)
    np.testing.assert_allclose(y, value, atol=1e-5)
    np.testing.assert_array_equal(numbers(layer.mean), mean)
    np.testing.assert_array_equal(numbers(layer.var), var)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("channels", [6, 5])
def test_ibn_is_instance_norm_on_the_first_half(maps, rng, train, channels):
    maps = maps[..., :channels]
    layer = randomised(lambda: InstanceBatchNorm(channels), rng)
    half = channels // 2
    mean, var = numbers(layer.BN.mean), numbers(layer.BN.var)
    first, last = np.split(maps.astype(np.float64), [half], axis=3)
    own = first.mean((1, 2), keepdims=True), first.var((1, 2), keepdims=True)
    first = (first - own[0]) / np.sqrt(own[1] + 1e-5)
    first = first * numbers(layer.IN.scale) + numbers(layer.IN.bias)
    shared = (last.mean((0, 1, 2)), last.var((0, 1, 2))) if train else (mean, var)
    value = (last - shared[0]) / np.sqrt(shared[1] + 1e-5)
    value = value * numbers(layer.BN.scale) + numbers(layer.BN.bias)
    view = training(layer) if train else layer
    y = view(jnp.asarray(maps))
    np.testing.assert_allclose(y, np.concatenate([first, value], 3), atol=2e-5)
    if train:
        count = last[..., 0].size
        unbiased = shared[1] * count / (count - 1)
        found = numbers(view.BN.mean), numbers(view.BN.var)
        np.testing.assert_allclose(found[0], 0.9 * mean + 0.1 * shared[0], rtol=1e-4)
        np.testing.assert_allclose(found[1], 0.9 * var + 0.1 * unbiased, rtol=1e-4)


def test_squeeze_excite_weighs_channels_by_their_means(maps, rng):
    layer = randomised(lambda: SqueezeExcite(CHANNELS, 4), rng)
    means = maps.mean((1, 2), dtype=np.float64)  # [B, C]
    hidden = means @ numbers(layer.fc1.kernel)[0, 0] + numbers(layer.fc1.bias)
    gate = np.maximum(hidden, 0) @ numbers(layer.fc2.kernel)[0, 0]
    gate = sigmoid(gate + numbers(layer.fc2.bias))
    expected = maps * gate[:, None, None]
    np.testing.assert_allclose(layer(jnp.asarray(maps)), expected, atol=1e-5)


def test_cbam_is_a_channel_gate_then_a_spatial_gate(maps, rng):
    layer = randomised(lambda: ConvBlockAttention(CHANNELS, reduction=2), rng)
    x = maps.astype(np.float64)

    def shared(pooled: np.ndarray) -> np.ndarray:
        hidden = pooled @ numbers(layer.fc1.kernel)[0, 0] + numbers(layer.fc1.bias)
        out = np.maximum(hidden, 0) @ numbers(layer.fc2.kernel)[0, 0]
        return out + numbers(layer.fc2.bias)

    gate = sigmoid(shared(x.mean((1, 2))) + shared(x.max((1, 2))))  # [B, C]
    x = x * gate[:, None, None]
    # The maximum over channels is the first of the two maps, the mean the second.
    two = np.pad(np.stack([x.max(3), x.mean(3)], 3), [(0, 0), (3, 3), (3, 3), (0, 0)])
    kernel = numbers(layer.conv.kernel)  # [7, 7, 2, 1]
    logits = np.zeros(x.shape[:3])
    for i in range(HEIGHT):
        for j in range(WIDTH):
            window = two[:, i : i + 7, j : j + 7]  # [B, 7, 7, 2]
            logits[:, i, j] = np.einsum("bijc,ijc->b", window, kernel[..., 0])
    scale = numbers(layer.bn.scale) / np.sqrt(numbers(layer.bn.var) + 1e-5)
    logits = (logits - numbers(layer.bn.mean)) * scale + numbers(layer.bn.bias)
    expected = x * sigmoid(logits)[..., None]
    np.testing.assert_allclose(layer(jnp.asarray(maps)), expected, atol=1e-5)


def test_the_spatial_gate_of_cbam_starts_at_a_half(maps):
    layer = initialise(lambda: ConvBlockAttention(32), 0)
    assert layer.fc1.kernel[...].shape == (1, 1, 32, 2)
    assert layer.bn.momentum == 0.99
    x = np.repeat(maps, 6, axis=3)[..., :32]
    half = np.asarray(layer(jnp.asarray(x)))
    bias: Any = layer.bn.bias
    bias.set_value(jnp.full(1, 50.0))
    np.testing.assert_allclose(half, 0.5 * np.asarray(layer(jnp.asarray(x))), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet_slim", {"width": 2}),
        ("resnet_slim", {"width": 2, "pool": "none"}),
        ("resnet50", {}),
        ("resnet50_ibn_a", {}),
        ("resnet50_cbam", {}),
        ("se_resnext50", {}),
        ("efficientnet_b0", {}),
    ],
)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_a_map_is_the_image_divided_by_the_stride(name, options, last_stride):
    def run(images: jax.Array) -> jax.Array:
        return models.backbone(name, last_stride=last_stride, **options)(images)

    stride = 8 if options.get("pool") == "none" else 16
    shape = jax.eval_shape(run, jax.ShapeDtypeStruct((1, 96, 64, 3), "float32")).shape
    step = stride * last_stride
    assert shape[:3] == (1, 96 // step, 64 // step)


@pytest.mark.parametrize("channels", [16, 256])
def test_widths_of_squeeze_and_excite(channels):
    """A sixteenth of a ResNeXt block's output, a quarter of an MBConv's input."""
    block: Any = initialise(
        lambda: Bottleneck(
            channels, channels, channels, stride=1, groups=1, ibn=False, cbam=False,
            squeeze=True, dtype=None,
        ),
        0,
    )  # fmt: skip
    assert block.se.fc1.kernel[...].shape == (1, 1, channels, channels // 16)
    assert block.se.fc2.kernel[...].shape == (1, 1, channels // 16, channels)
    mobile: Any = initialise(
        lambda: InvertedResidual(
            channels, 24, 3, stride=1, expand=6, is_residual=False, squeeze=True,
            activation=jax.nn.silu, drop_rate=0.0, dtype=None,
        ),
        0,
    )  # fmt: skip
    assert mobile.se.fc1.kernel[...].shape == (1, 1, 6 * channels, channels // 4)


@pytest.mark.parametrize(
    ("name", "million"),
    [
        # Numbers of parameters without a classifier, as torchvision and the authors'
        # own code count them.
        ("resnet50", 23.508),
        ("resnet50_ibn_a", 23.508),
        ("se_resnext50", 25.511),
        ("efficientnet_b0", 4.008),
        ("efficientnet_b1", 6.513),
        ("efficientnet_b2", 7.701),
        ("efficientnet_b3", 10.696),
    ],
)
def test_numbers_of_parameters(name, million):
    network = models.backbone(name, rngs=None)
    state = nnx.state(network, nnx.Param)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state))
    assert count / 1e6 == pytest.approx(million, abs=6e-4)
