"""The ResNet family: plain, IBN-a, CBAM, squeeze-excite ResNeXt, and a slim one."""

import functools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dex_jax._checks import check_choice, check_count, check_flag
from dex_jax.models._chain import Plan, Unit, check_images
from dex_jax.models._layers import (
    BatchNorm,
    Conv,
    ConvBlockAttention,
    InstanceBatchNorm,
    SqueezeExcite,
)

POOLS = ("padded", "ceil", "none")


def resnet_plan(
    *,
    width: int = 64,
    blocks: Sequence[int] = (3, 4, 6, 3),
    ibn: bool = False,
    cbam: str = "none",
    squeeze: bool = False,
    groups: int = 1,
    group_width: int = 64,
    pool: str = "padded",
    stem_relu: bool = True,
    last_stride: int = 1,
    dtype: DTypeLike | None = None,
) -> Plan:
    """Lists the units of a residual network of bottleneck blocks.

    Args:
        width: channels of the stem and of the first stage's bottleneck.
        blocks: number of blocks of each of the four stages.
        ibn: IBN-a in the first three stages.
        cbam: "blocks" for one in every bottleneck (its authors' form), "last" for a
            single one after the last stage, "none".
        squeeze: squeeze and excitation in every bottleneck.
        groups: of the 3 x 3 convolutions.
        group_width: channels of one group, for each 64 of the stage's planes.
        pool: max-pool of the stem: "padded" by one pixel; "ceil", unpadded with a last
            window that may run over the edge (Cadene's SE networks); "none", which
            keeps the map twice as large.
        stem_relu: a ReLU between the stem's batch norm and its pool. Some networks of
            re-identification were trained without one.
        last_stride: stride of the last stage, 1 (the habit of re-identification) or 2.
        dtype: type of the arithmetic, None for the input's.
    """
    check_count(width, "width")
    check_choice(cbam, "cbam", ("blocks", "last", "none"))
    check_choice(pool, "pool", POOLS)
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride!r}")
    if len(blocks) != 4:
        raise ValueError(f"blocks: expected four stages, got {blocks!r}")
    check_flag(stem_relu, "stem_relu")
    make_stem = partial(Stem, width, pool=pool, relu=stem_relu, dtype=dtype)
    units: list[Unit] = [("stem", make_stem)]
    channels = width
    for stage, count in enumerate(blocks):
        check_count(count, f"blocks[{stage}]")
        planes = width * 2**stage
        for block in range(count):
            first_stride = (1, 2, 2, last_stride)[stage]
            make = partial(
                Bottleneck,
                channels,
                planes * group_width // 64 * groups,
                4 * planes,
                stride=first_stride if block == 0 else 1,
                groups=groups,
                ibn=ibn and stage < 3,
                cbam=cbam == "blocks",
                squeeze=squeeze,
                dtype=dtype,
            )
            units.append((f"layer{stage + 1}_{block}", make))
            channels = 4 * planes
    if cbam == "last":
        units.append(("cbam", partial(ConvBlockAttention, channels, dtype=dtype)))
    stride = 2 * (1 if pool == "none" else 2) * 4 * last_stride
    return Plan(tuple(units), channels, stride)


class Stem(nnx.Module):
    """7 x 7 convolution of stride 2, batch norm, ReLU (where asked), max-pool."""

    def __init__(self, width: int, *, pool: str, relu: bool, dtype: DTypeLike | None):
        self.pool = pool
        self.relu = relu
        self.conv1 = Conv(3, width, 7, stride=2, dtype=dtype)
        self.bn1 = BatchNorm(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        check_images(x)
        x = self.bn1(self.conv1(x))
        x = jax.nn.relu(x) if self.relu else x
        return x if self.pool == "none" else max_pool(x, ceil=self.pool == "ceil")


def max_pool(x: jax.Array, *, ceil: bool) -> jax.Array:
    """3 x 3 maxima at stride 2, padded by a pixel or (`ceil`) at the far end alone.

    Taken one axis at a time from shifted slices: the gradient of XLA's window reduction
    is five times slower on a CPU.
    """
    for axis in (1, 2):
        # The far padding completes the last window that starts inside the map.
        ends = (0, (x.shape[axis] - 1) % 2) if ceil else (1, 1)
        padding = [ends if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(x, padding, constant_values=-jnp.inf)
        last = padded.shape[axis] - 2
        slices = [
            jax.lax.slice_in_dim(padded, start, last + start, 2, axis)
            for start in range(3)
        ]
        x = functools.reduce(_larger, slices)
    return x


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum of two maps, whose gradient goes to exactly one of them.

    That of `jnp.maximum` looks for the result among its operands again, and is lost
    where the compiler computes them twice and rounds differently.
    """
    return jnp.where(a >= b, a, b)


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut.

    The stride is in the 3 x 3 convolution. Attention sits after the last batch norm and
    before the shortcut is added.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        channels_out: int,
        *,
        stride: int,
        groups: int,
        ibn: bool,
        cbam: bool,
        squeeze: bool,
        dtype: DTypeLike | None,
    ):
        self.conv1 = Conv(channels_in, width, dtype=dtype)
        self.bn1 = InstanceBatchNorm(width) if ibn else BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride=stride, groups=groups, dtype=dtype)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, channels_out, dtype=dtype)
        self.bn3 = BatchNorm(channels_out)
        hidden = max(channels_out // 16, 1)
        self.se = SqueezeExcite(channels_out, hidden, dtype=dtype) if squeeze else None
        self.cbam = ConvBlockAttention(channels_out, dtype=dtype) if cbam else None
        reshapes = stride != 1 or channels_in != channels_out
        self.downsample = (
            Shortcut(channels_in, channels_out, stride, dtype) if reshapes else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        x = jax.nn.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        if self.se is not None:
            x = self.se(x)
        if self.cbam is not None:
            x = self.cbam(x)
        return jax.nn.relu(x + shortcut)


class Shortcut(nnx.Module):
    """1 x 1 convolution and batch norm, where a block changes the shape."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, dtype: DTypeLike | None
    ):
        self.conv = Conv(channels_in, channels_out, stride=stride, dtype=dtype)
        self.bn = BatchNorm(channels_out)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))
