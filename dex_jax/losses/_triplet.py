"""Batch-hard triplet loss: equation 3."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import ArrayLike, check_choice, check_flag, check_ids, on_any_mesh
from dex_jax.losses._inputs import read_inputs, read_option


@on_any_mesh
def batch_hard_triplet(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float | jax.Array | None = 1.2,
    normalize: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    """Triplet loss of every anchor with its hardest positive and hardest negative.

    Equation 3 of the paper (section 3.1): `max(D_ap - D_an + margin, 0)` with Euclidean
    distances. The paper prints a sum over triplets and mines batch-hard in the text;
    like public code we take, per anchor, the farthest image of its identity (the
    anchor itself counts, at distance 1e-6, and wins only where it is alone) and the
    nearest image of another identity. The paper gives no margin: 1.2 is the authors'
    later public choice, 0.3 the other common one.

    Triplets are chosen from the Gram matrix; the chosen distances are then computed
    from differences, because `|x|^2 + |y|^2 - 2xy` cancels for close pairs. Arithmetic
    is float32 (float64 for float64 input). The gradient is finite at distance 0. For a
    partition network, lift it:
    `jax.vmap(batch_hard_triplet, in_axes=(1, None))` over `[B, P, D]`.

    Args:
        embeddings: `[B, D]`, floating.
        labels: integer `[B]` identities, any values, any number of images of each.
        margin: at least 0, traced; None for the soft margin
            `log(1 + exp(D_ap - D_an))`.
        normalize: divides each row by its length first.
        reduction: "mean" or "sum" over the anchors. An anchor without a negative (all
            images are of one identity) contributes 0 and counts in the mean.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: a wrong shape or type, a margin that is not one number of at least
            0, another `reduction`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
        >>> float(batch_hard_triplet(x, jnp.array([0, 0, 1, 1]), margin=1.0))
        0.75
    """
    x = read_inputs(embeddings, "embeddings", "[B, D]")
    identities = check_ids(labels, "labels", size=x.shape[0], text=False)
    check_choice(reduction, "reduction", ("mean", "sum"))
    if margin is not None:
        margin = read_option(margin, "margin", x, least=0)
    if check_flag(normalize, "normalize"):
        x = x / (_length(x, floor=0.0)[:, None] + 1e-12)
    positive, negative, has_negative = _hardest(jax.lax.stop_gradient(x), identities)
    gap = _length(x - x[positive]) - _length(x - x[negative])  # [B]
    loss = jax.nn.softplus(gap) if margin is None else jax.nn.relu(gap + margin)
    loss = jnp.where(has_negative, loss, 0)
    return jnp.mean(loss) if reduction == "mean" else jnp.sum(loss)


@on_any_mesh
def hardest_distances(
    embeddings: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """How far each anchor's hardest positive and hardest negative are.

    Training is going well while the first falls below the second.

    Args:
        embeddings: `[B, D]`, floating.
        labels: integer `[B]` identities.

    Returns:
        Euclidean distances `[B]` to the farthest positive and to the nearest negative,
        as `batch_hard_triplet` mines them.

    Raises:
        ValueError: a wrong shape or type.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
        >>> positive, negative = hardest_distances(x, jnp.array([0, 0, 1, 1]))
        >>> positive.tolist(), negative.tolist()
        ([1.0, 1.0, 4.0, 4.0], [3.0, 2.0, 2.0, 6.0])
    """
    x = read_inputs(embeddings, "embeddings", "[B, D]")
    identities = check_ids(labels, "labels", size=x.shape[0], text=False)
    positive, negative, _ = _hardest(x, identities)
    return _length(x - x[positive]), _length(x - x[negative])


def _hardest(x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ids `[B]` of the farthest positive and the nearest negative of each anchor."""
    x = x - jnp.mean(x, axis=0, keepdims=True)  # smaller squares cancel less
    gram = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)  # [B, B]
    square = jnp.diagonal(gram)
    distance = square[:, None] + square[None, :] - 2 * gram
    # The anchor itself, nearest of its identity, must win only where it is alone.
    distance = jnp.where(np.eye(len(x), dtype=bool), -1, jnp.maximum(distance, 0))
    same = labels[:, None] == labels[None, :]
    positive = jnp.argmax(jnp.where(same, distance, -jnp.inf), axis=1)
    negative = jnp.argmin(jnp.where(same, jnp.inf, distance), axis=1)
    return positive, negative, jnp.any(~same, axis=1)


def _length(rows: jax.Array, *, floor: float = 1e-12) -> jax.Array:
    """Row lengths `[B]`, clamped before the root so that the gradient at 0 is 0."""
    square = jnp.sum(rows * rows, axis=1)
    tiny = floor or np.finfo(rows.dtype).tiny
    # Not jnp.maximum: its gradient looks for the result among the operands again, and
    # is lost where the compiler computes them twice and rounds differently.
    return jnp.sqrt(jnp.where(square > tiny, square, tiny))
