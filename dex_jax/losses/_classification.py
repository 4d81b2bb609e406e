"""Cross-entropy with label smoothing (equations 1 and 2), and an angular margin."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import ArrayLike, check_classes, on_any_mesh
from dex_jax.losses._inputs import read_inputs, read_option


@on_any_mesh
def label_smoothed_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, epsilon: float | jax.Array = 0.1
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
            label outside gives NaN.
        epsilon: smoothing in `[0, 1]`, traced; 0 is the plain cross-entropy.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: a wrong shape or type, a label outside `0 .. C - 1`, `epsilon` that
            is not one number in `[0, 1]`.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = label_smoothed_cross_entropy(
        ...     jnp.zeros((2, 4)), jnp.array([0, 3]), epsilon=0.1
        ... )
        >>> bool(jnp.allclose(loss, jnp.log(4.0)))
        True
    """
    wide = read_inputs(logits, "logits", "[B, C]")
    B, C = wide.shape
    classes = check_classes(labels, "labels", size=B, classes=C)
    epsilon = read_option(epsilon, "epsilon", wide, least=0, most=1)
    log_probability = jax.nn.log_softmax(wide, axis=1)  # [B, C]
    true_class = jnp.take_along_axis(log_probability, classes[:, None], axis=1)[:, 0]
    uniform = jnp.mean(log_probability, axis=1)  # [B]
    return -jnp.mean((1 - epsilon) * true_class + epsilon * uniform)


@on_any_mesh
def additive_angular_margin(
    cosines: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float | jax.Array = 0.3,
    scale: float | jax.Array = 30.0,
) -> jax.Array:
    """ArcFace: logits whose true class must win by an angle.

    With `cos(theta_i)` between an embedding and the weight of class i, the logits are
    `scale * cos(theta_i)`, and `scale * cos(theta_y + margin)` for the true class y
    (Deng, Guo, Xue, Zafeiriou, "ArcFace", CVPR 2019, equation 3); their cross-entropy
    is the loss. Beyond `theta = pi - margin`, where that cosine would rise again, it is
    continued as `cos(theta) - margin * sin(margin)`, as the authors' code does. The
    gradient is finite at cosines of 1 and -1. The paper takes 0.5 and 64 for millions
    of faces; fewer classes learn from the smaller ones here.

    Args:
        cosines: `[B, C]`, floating, in [-1, 1].
        labels: integer `[B]` in `0 .. C - 1`. Checked when concrete; under tracing a
            row with a label outside has no margin.
        margin: an angle in [0, pi / 2], traced; 0 is the normalised softmax.
        scale: above 0, traced.

    Returns:
        Logits `[B, C]`, at least float32, for `label_smoothed_cross_entropy`.

    Raises:
        ValueError: a wrong shape or type, a label outside `0 .. C - 1`, a margin or a
            scale that is not one number in range.

    Example:
        >>> import jax.numpy as jnp
        >>> cosines = jnp.array([[0.5, 0.5]])  # 60 degrees from either class
        >>> logits = additive_angular_margin(
        ...     cosines, jnp.array([0]), margin=jnp.pi / 6, scale=10.0
        ... )
        >>> logits.round(4).tolist()
        [[0.0, 5.0]]
    """
    cosine = read_inputs(cosines, "cosines", "[B, C]")
    B, C = cosine.shape
    classes = check_classes(labels, "labels", size=B, classes=C)
    margin = read_option(margin, "margin", cosine, least=0, most=np.pi / 2)
    scale = read_option(scale, "scale", cosine, above=0)
    square = 1 - cosine * cosine
    # A floor before the root, so that its gradient at a cosine of 1 is 0.
    tiny = np.finfo(cosine.dtype).eps
    sine = jnp.sqrt(jnp.where(square > tiny, square, tiny))
    turned = cosine * jnp.cos(margin) - sine * jnp.sin(margin)  # cos(theta + margin)
    beyond = cosine - margin * jnp.sin(margin)
    harder = jnp.where(cosine > -jnp.cos(margin), turned, beyond)
    true_class = jax.nn.one_hot(classes, C, dtype=bool)
    return scale * jnp.where(true_class, harder, cosine)
