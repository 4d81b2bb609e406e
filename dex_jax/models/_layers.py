"""The pieces that networks are built of: convolution, normalisation, attention.

Maps are NHWC. Parameters and statistics are float32; `dtype` is the type of the
arithmetic and of what flows between layers, None for the input's own. Every parameter
says how it starts (`start`) and holds zeros until `dex_jax.models._start` fills it, so
that describing a network compiles nothing.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dex_jax.models._convolution import (
    convolve,
    depthwise,
    explicit_pads,
    mixing,
    pointwise,
)
from dex_jax.models._normalization import (
    along_last,
    moments,
    normalize,
    standardize,
    widen,
)

Activation = Callable[[jax.Array], jax.Array]


def constant(shape: Sequence[int], value: float) -> nnx.Param:
    """A parameter that starts at one value."""
    return nnx.Param(jnp.zeros(tuple(shape), jnp.float32), start=("constant", value))


def normal(shape: Sequence[int], std: float) -> nnx.Param:
    """A parameter that starts as normal noise."""
    return nnx.Param(jnp.zeros(tuple(shape), jnp.float32), start=("normal", std))


def statistic(shape: Sequence[int], value: float) -> nnx.BatchStat:
    """A running statistic that starts at one value."""
    return nnx.BatchStat(
        jnp.zeros(tuple(shape), jnp.float32), start=("constant", value)
    )


def largest(x: jax.Array, *, axis: int) -> jax.Array:
    """The maximum along an axis, whose gradient goes to the place of the first maximum.

    The gradient of `jnp.max` looks for the value in `x` again. Under `jax.jit` the
    compiler may compute `x` twice and round differently; the value is then not found
    and its gradient is lost without a word. A place is found in any rounding.

    Example:
        >>> import jax.numpy as jnp
        >>> largest(jnp.array([[1.0, 4.0], [3.0, 2.0]]), axis=0).tolist()
        [3.0, 4.0]
    """
    place = jnp.argmax(jax.lax.stop_gradient(x), axis=axis, keepdims=True)
    here = jax.lax.broadcasted_iota(place.dtype, x.shape, axis) == place
    return jnp.sum(jnp.where(here, x, 0), axis=axis, dtype=x.dtype)


def generalized_mean(x: jax.Array, *, power: jax.Array, axis: int) -> jax.Array:
    """GeM: `mean(x ** power) ** (1 / power)` along an axis.

    Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human
    Annotation", TPAMI 2019, equation 3. A power of 1 is the mean and a large one nears
    the maximum; below 1 it is held at 1. Values below 1e-6 count as 1e-6 and have no
    gradient. Taken through logarithms, which no power drives out of range; the result
    is at least float32.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([1.0, 2.0, 3.0])
        >>> round(float(generalized_mean(x, power=jnp.array(3.0), axis=0)) ** 3, 3)
        12.0
    """
    x = widen(x)
    # Not jnp.maximum, whose gradient can be lost as that of jnp.max (see `largest`).
    x = jnp.where(x > 1e-6, x, 1e-6)
    power = jnp.where(power > 1, power, 1)
    total = jax.nn.logsumexp(power * jnp.log(x), axis=axis)
    return jnp.exp((total - jnp.log(x.shape[axis])) / power)


class Conv(nnx.Module):
    """A convolution; `padding` is a number of pixels on every side or "SAME".

    "SAME" is TensorFlow's rule, where the odd pixel goes to the end: at stride 2 it
    differs from the symmetric padding of a number. Convolutions of 1 x 1 and those that
    keep channels apart have forms of their own (`dex_jax.models._convolution`).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        *,
        stride: int = 1,
        padding: int | str | None = None,
        groups: int = 1,
        use_bias: bool = False,
        dtype: DTypeLike | None = None,
    ):
        self.stride = stride
        self.groups = groups
        self.padding = size // 2 if padding is None else padding
        self.dtype = dtype
        fan_out = size * size * channels_out / groups
        shape = (size, size, channels_in // groups, channels_out)
        self.kernel = normal(shape, (2 / fan_out) ** 0.5)
        self.bias = constant((channels_out,), 0.0) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        dtype = self.dtype or jnp.result_type(x, kernel)
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if kernel.shape[:2] == (1, 1) and self.groups == 1:
            x = x[:, :: self.stride, :: self.stride]
            x = pointwise(x, kernel[0, 0])
        else:
            pads = explicit_pads(x, kernel, self.stride, self.padding)
            if self.groups == 1:
                x = mixing(x, kernel, self.stride, pads)
            elif self.groups == x.shape[-1] == kernel.shape[-1]:
                x = depthwise(x, kernel, self.stride, pads)
            else:
                x = convolve(x, kernel, self.stride, pads, groups=self.groups)
        if self.bias is None:
            return x
        return x + along_last(self.bias[...].astype(dtype), x.ndim)


class BatchNorm(nnx.Module):
    """Batch normalisation over the leading axes; `shape` is what is kept apart.

    Running statistics follow torch: the variance that is averaged in is the unbiased
    one (Flax's own layer takes the biased), so that both frameworks agree after a step.
    `use_running_average` is set through `flax.nnx.view`.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        start: float = 1.0,
        use_bias: bool = True,
    ):
        shape = (shape,) if isinstance(shape, int) else shape
        self.epsilon = epsilon
        self.momentum = momentum
        self.use_running_average = True
        self.scale = constant(shape, start)
        self.bias = constant(shape, 0.0) if use_bias else None
        self.mean = statistic(shape, 0.0)
        self.var = statistic(shape, 1.0)

    def set_view(self, use_running_average: bool | None = None):
        """Switches between batch and running statistics; called by `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array) -> jax.Array:
        scale, bias = self.scale[...], None if self.bias is None else self.bias[...]
        if self.use_running_average:
            mean, variance = self.running(x.ndim)
            return standardize(x, mean, variance, scale, bias, self.epsilon)
        y, mean, variance = normalize(x, scale, bias, epsilon=self.epsilon)
        self.update(mean, variance, x.size // self.mean.size)
        return y

    def running(self, ndim: int) -> tuple[jax.Array, jax.Array]:
        """The running mean and variance, ready to broadcast."""
        return along_last(self.mean[...], ndim), along_last(self.var[...], ndim)

    def update(self, mean: jax.Array, variance: jax.Array, count: int) -> None:
        """Averages the statistics of `count` values a channel into the running ones."""
        unbiased = variance * (count / max(count - 1, 1))
        for stored, new in ((self.mean, mean), (self.var, unbiased)):
            old = stored[...]
            new = jax.lax.stop_gradient(new.reshape(old.shape)).astype(old.dtype)
            stored.set_value(self.momentum * old + (1 - self.momentum) * new)


class InstanceAffine(nnx.Module):
    """Scale and bias of an instance normalisation."""

    def __init__(self, channels: int):
        self.scale = constant((channels,), 1.0)
        self.bias = constant((channels,), 0.0)


class InstanceBatchNorm(nnx.Module):
    """IBN-a: instance norm on the first half of the channels, batch norm on the rest.

    Both halves are normalised in one pass: only the statistics differ.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        self.half = channels // 2
        self.IN = InstanceAffine(self.half)
        self.BN = BatchNorm(channels - self.half, epsilon=epsilon)

    def __call__(self, x: jax.Array) -> jax.Array:
        half, batch = self.half, self.BN
        scale = jnp.concatenate([self.IN.scale[...], batch.scale[...]])
        biases = [
            layer.bias[...] for layer in (self.IN, batch) if layer.bias is not None
        ]
        bias = jnp.concatenate(biases)
        if not batch.use_running_average:
            y, mean, variance = normalize(
                x, scale, bias, epsilon=batch.epsilon, own=half
            )
            shared = (mean[:1, ..., half:], variance[:1, ..., half:])
            batch.update(*shared, x.size // x.shape[-1])
            return y
        own = moments(x[..., :half], (1, 2))  # [B, 1, 1, C / 2]
        shape = (*own[0].shape[:-1], x.shape[-1] - half)
        mean, variance = (
            jnp.concatenate([a, jnp.broadcast_to(b, shape)], axis=-1)
            for a, b in zip(own, batch.running(x.ndim), strict=True)
        )
        return standardize(x, mean, variance, scale, bias, batch.epsilon)


class SqueezeExcite(nnx.Module):
    """Squeeze and excitation: channels weighted by a gate that saw their means."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        activation: Activation = jax.nn.relu,
        dtype: DTypeLike | None = None,
    ):
        self.activation = activation
        self.fc1 = Conv(channels, hidden, use_bias=True, dtype=dtype)
        self.fc2 = Conv(hidden, channels, use_bias=True, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = jnp.mean(widen(x), axis=(1, 2), keepdims=True).astype(x.dtype)
        gate = self.fc2(self.activation(self.fc1(pooled)))
        return x * jax.nn.sigmoid(gate)


class ConvBlockAttention(nnx.Module):
    """CBAM: a channel gate, then a spatial gate, as its authors publish it.

    The batch norm of the spatial gate starts at scale 0: the gate is a constant 0.5.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, dtype: DTypeLike | None = None
    ):
        hidden = max(channels // reduction, 1)
        self.fc1 = Conv(channels, hidden, use_bias=True, dtype=dtype)
        self.fc2 = Conv(hidden, channels, use_bias=True, dtype=dtype)
        self.conv = Conv(2, 1, 7, dtype=dtype)
        self.bn = BatchNorm(1, momentum=0.99, start=0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = jnp.mean(widen(x), axis=(1, 2), keepdims=True).astype(x.dtype)
        flat = x.reshape(x.shape[0], -1, x.shape[3])
        peak = largest(flat, axis=1)[:, None, None]
        logits = [self.fc2(jax.nn.relu(self.fc1(p))) for p in (mean, peak)]
        x = x * jax.nn.sigmoid(logits[0] + logits[1])
        mean = jnp.mean(widen(x), axis=3, keepdims=True).astype(x.dtype)
        maps = jnp.concatenate(
            [largest(x, axis=3)[..., None], mean], axis=3
        )  # [B, H, W, 2]
        return x * jax.nn.sigmoid(self.bn(self.conv(maps)))
