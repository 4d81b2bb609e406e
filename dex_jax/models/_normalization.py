"""Normalisation by the statistics of a batch or of each image, and its gradient."""

import jax
import jax.numpy as jnp


def along_last(vector: jax.Array, ndim: int) -> jax.Array:
    """Adds leading axes of size 1, so that `[C]` broadcasts along channels."""
    return vector.reshape((1,) * (ndim - vector.ndim) + vector.shape)


def widen(x: jax.Array) -> jax.Array:
    """At least float32: the type in which sums over many values are taken."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over some axes, which stay with size 1."""
    x = widen(x)
    mean = jnp.mean(x, axis=axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axis=axes, keepdims=True)


def standardize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None,
    epsilon: float,
) -> jax.Array:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, in the type of x."""
    gain = along_last(scale, x.ndim) * jax.lax.rsqrt(variance + epsilon)
    y = (widen(x) - mean) * gain
    if bias is not None:
        y = y + along_last(bias, x.ndim)
    return y.astype(x.dtype)


Normalized = tuple[jax.Array, jax.Array, jax.Array]


def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array | None,
    *,
    epsilon: float,
    own: int = 0,
) -> Normalized:
    """Batch norm in training; the first `own` channels by each image's statistics.

    The gradient is the closed form, `scale / deviation` times the gradient less its
    mean and less the normalised value times the mean of their product: two sums, where
    the chain rule takes four, one of them always zero.

    Args:
        x: `[..., *kept]`, with `own` > 0 `[B, H, W, C]`.
        scale: `[*kept]`, one value for each statistic.
        bias: as `scale`, or None.
        epsilon: added to the variance.
        own: channels that each image normalises by its own statistics.

    Returns:
        The result in the type of x; mean and biased variance, at least float32, with 1
        for axes that were averaged over. The statistics have no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0], [3.0]])
        >>> y, mean, variance = normalize(x, jnp.ones(1), None, epsilon=0.0)
        >>> y.tolist(), mean.tolist(), variance.tolist()
        ([[-1.0], [1.0]], [[2.0]], [[1.0]])
    """
    return _normalized(x, scale, bias, epsilon, own)


def _compute(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float, own: int
) -> Normalized:
    wide = widen(x)
    mean = _means(wide, scale.ndim, own)
    variance = _means(jnp.square(wide - mean), scale.ndim, own)
    return standardize(x, mean, variance, scale, bias, epsilon), mean, variance


Kept = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float, own: int
) -> tuple[Normalized, Kept]:
    y, mean, variance = _compute(x, scale, bias, epsilon, own)
    return (y, mean, variance), (x, scale, bias, mean, variance)


def _backward(
    epsilon: float, own: int, kept: Kept, gradients: Normalized
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    x, scale, bias, mean, variance = kept
    gradient = widen(gradients[0])
    inverse = jax.lax.rsqrt(variance + epsilon)
    value = (widen(x) - mean) * inverse
    of_bias = _means(gradient, scale.ndim, own)
    of_scale = _means(gradient * value, scale.ndim, own)
    gain = along_last(scale, x.ndim) * inverse
    of_x = (gradient - of_bias - value * of_scale) * gain

    def summed(means: jax.Array) -> jax.Array:
        axes = tuple(range(x.ndim - scale.ndim))
        return (jnp.sum(means, axes) * (x.size // means.size)).astype(scale.dtype)

    return (
        of_x.astype(x.dtype),
        summed(of_scale),
        None if bias is None else summed(of_bias),
    )


_normalized = jax.custom_vjp(_compute, nondiff_argnums=(3, 4))
_normalized.defvjp(_forward, _backward)


def _means(x: jax.Array, kept: int, own: int) -> jax.Array:
    """Means over the batch, and of each image by itself in the first `own` channels."""
    if not own:
        return jnp.mean(x, axis=tuple(range(x.ndim - kept)), keepdims=True)
    images = jnp.mean(x, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
    shared = jnp.mean(images[..., own:], axis=0, keepdims=True)
    shape = (*images.shape[:-1], x.shape[-1] - own)
    return jnp.concatenate(
        [images[..., :own], jnp.broadcast_to(shared, shape)], axis=-1
    )
