"""Cross-entropy with label smoothing: equations 1 and 2."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import check_ids, is_concrete


def label_smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, epsilon: float | jax.Array = 0.1
) -> jax.Array:
    """Cross-entropy against smoothed one-hot targets, averaged over the batch.

    Equations 1 and 2 of the paper (section 3.1), with the minus sign that the printed
    equation 1 lacks: `-sum_i t_i log softmax(logits)_i`, where the target `t_i` is
    `(1 - epsilon) + epsilon / C` for the true class and `epsilon / C` for the others.
    Arithmetic is float32 (float64 for float64 logits) whatever the input's type. For
    the heads of a partition network, lift it:
    `jax.vmap(label_smoothed_cross_entropy, in_axes=(1, None))` over `[B, P, C]`.

    Args:
        logits: `[B, C]`, floating.
        labels: integer `[B]` in `0 .. C - 1`. Checked when concrete; under tracing a
            label at `C` or above gives NaN.
        epsilon: smoothing in `[0, 1]`, traced; 0 is the plain cross-entropy.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: a wrong shape, a label outside `0 .. C - 1`, `epsilon` outside
            `[0, 1]`.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = label_smoothed_cross_entropy(
        ...     jnp.zeros((2, 4)), jnp.array([0, 3]), epsilon=0.1
        ... )
        >>> bool(jnp.allclose(loss, jnp.log(4.0)))
        True
    """
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"logits: expected [B, C], got shape {logits.shape}")
    B, C = logits.shape
    labels = check_ids(labels, "labels", size=B)
    if is_concrete(labels):
        values = np.asarray(labels)
        if values.min() < 0 or values.max() >= C:
            raise ValueError(
                f"labels: expected values in 0 .. {C - 1} for {C} classes, got "
                f"{values.min()} .. {values.max()}"
            )
    if is_concrete(epsilon) and not 0 <= float(epsilon) <= 1:
        raise ValueError(f"epsilon: expected a number in [0, 1], got {epsilon}")
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_probability = jax.nn.log_softmax(wide, axis=1)  # [B, C]
    true_class = jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]
    uniform = jnp.mean(log_probability, axis=1)  # [B]
    return -jnp.mean((1 - epsilon) * true_class + epsilon * uniform)
