"""EfficientNet B0 to B3 and Lite0, with TensorFlow's padding at every image size."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dex_jax.models._chain import Plan, Unit, check_images
from dex_jax.models._layers import Activation, BatchNorm, Conv, SqueezeExcite


class Stage(NamedTuple):
    """A row of the base network's table."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def efficientnet_plan(
    *,
    width: float = 1.0,
    depth: float = 1.0,
    lite: bool = False,
    stochastic_depth: float = 0.0,
    last_stride: int = 1,
    dtype: DTypeLike | None = None,
) -> Plan:
    """Lists the units of an EfficientNet.

    Args:
        width: multiplier of the channels.
        depth: multiplier of the repeats.
        lite: the variant for small devices: no squeeze-excite, ReLU6 for swish, stem,
            head and the first and last stage never scaled.
        stochastic_depth: probability of skipping the last block's branch in training,
            for each image; it grows linearly from 0 at the first block. The reference
            trains with 0.2. The call then needs a random `key` in training.
        last_stride: stride of the sixth stage, 1 or 2 (the ImageNet network). No public
            convention exists for re-identification: this is the ResNet habit.
        dtype: type of the arithmetic, None for the input's.
    """
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride!r}")
    if not 0 <= stochastic_depth < 1:
        raise ValueError(
            f"stochastic_depth: expected a rate in [0, 1), got {stochastic_depth!r}"
        )
    for name, factor in (("width", width), ("depth", depth)):
        if not 0 < factor < math.inf:
            raise ValueError(f"{name}: expected a number above 0, got {factor!r}")
    activation = relu6 if lite else jax.nn.swish
    channels = 32 if lite else scaled(32, width)
    make_stem = partial(ConvUnit, 3, channels, 3, stride=2, is_stem=True)
    units: list[Unit] = [("stem", partial(make_stem, activation, dtype=dtype))]
    blocks: list[tuple[str, partial[InvertedResidual]]] = []
    for index, stage in enumerate(STAGES):
        channels_out = scaled(stage.channels, width)
        fixed = lite and index in (0, 6)
        for block in range(
            stage.repeats if fixed else math.ceil(depth * stage.repeats)
        ):
            stride = last_stride if index == 5 else stage.stride
            make = partial(
                InvertedResidual,
                channels,
                channels_out,
                stage.kernel,
                stride=stride if block == 0 else 1,
                expand=stage.expand,
                is_residual=block > 0,
                squeeze=not lite,
                activation=activation,
                dtype=dtype,
            )
            blocks.append((f"stage{index + 1}_{block}", make))
            channels = channels_out
    for index, (name, make) in enumerate(blocks):
        rate = stochastic_depth * index / len(blocks)
        units.append((name, partial(make, drop_rate=rate)))
    head = 1280 if lite else scaled(1280, width)
    units.append(
        ("head", partial(ConvUnit, channels, head, 1, activation, dtype=dtype))
    )
    return Plan(tuple(units), head, 16 * last_stride)


def relu6(x: jax.Array) -> jax.Array:
    """ReLU cut off at 6."""
    return jnp.where(x < 6, jax.nn.relu(x), 6)


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 and at most a tenth smaller."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def batch_norm(channels: int) -> BatchNorm:
    """The batch norm of this family: a larger epsilon, slower averages."""
    return BatchNorm(channels, epsilon=1e-3, momentum=0.99)


class ConvUnit(nnx.Module):
    """Convolution, batch norm and activation: the stem and the head."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int,
        activation: Activation,
        *,
        stride: int = 1,
        is_stem: bool = False,
        dtype: DTypeLike | None,
    ):
        self.activation = activation
        self.is_stem = is_stem
        self.conv = Conv(
            channels_in, channels_out, size, stride=stride, padding="SAME", dtype=dtype
        )
        self.bn = batch_norm(channels_out)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.is_stem:
            check_images(x)
        return self.activation(self.bn(self.conv(x)))


class InvertedResidual(nnx.Module):
    """MBConv: widen, depthwise convolution, squeeze-excite, project; maybe a shortcut.

    Squeeze-excite narrows to a quarter of the block's input, not of its widened map.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int,
        expand: int,
        is_residual: bool,
        squeeze: bool,
        activation: Activation,
        drop_rate: float,
        dtype: DTypeLike | None,
    ):
        wide = channels_in * expand
        self.activation = activation
        self.is_residual = is_residual
        self.drop_rate = drop_rate
        self.is_random = is_residual and drop_rate > 0
        self.expand = Conv(channels_in, wide, dtype=dtype) if expand > 1 else None
        self.bn0 = batch_norm(wide) if expand > 1 else None
        self.depthwise = Conv(
            wide, wide, kernel, stride=stride, padding="SAME", groups=wide, dtype=dtype
        )
        self.bn1 = batch_norm(wide)
        hidden = max(1, channels_in // 4)
        self.se = (
            SqueezeExcite(wide, hidden, activation=activation, dtype=dtype)
            if squeeze
            else None
        )
        self.project = Conv(wide, channels_out, dtype=dtype)
        self.bn2 = batch_norm(channels_out)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        shortcut = x
        if self.expand is not None and self.bn0 is not None:
            x = self.activation(self.bn0(self.expand(x)))
        x = self.activation(self.bn1(self.depthwise(x)))
        if self.se is not None:
            x = self.se(x)
        x = self.bn2(self.project(x))
        if not self.is_residual:
            return x
        if self.is_random and not self.bn2.use_running_average:
            x = self._drop(x, key)
        return x + shortcut

    def _drop(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Stochastic depth: zeroes the branch `[B, h, w, C]` of random images.

        The others are divided by the share that is kept, so that the mean is unchanged.
        """
        if key is None:
            raise ValueError(
                "key: this network has stochastic depth; training needs a random key"
            )
        keep = 1 - self.drop_rate
        kept = jax.random.uniform(key, (x.shape[0], 1, 1, 1), jnp.float32) < keep
        return jnp.where(kept, x / keep, 0).astype(x.dtype)
