"""Circle loss over the pairs of a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import ArrayLike, check_ids, on_any_mesh
from dex_jax.losses._inputs import read_inputs, read_option


@on_any_mesh
def circle(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    margin: float | jax.Array = 0.25,
    scale: float | jax.Array = 128.0,
) -> jax.Array:
    """Pushes cosines of an identity towards 1 and the others towards 0, far ones first.

    For an anchor with cosines `s_p` to images of its identity and `s_n` to all others,

        log(1 + sum_n exp(scale * a_n * (s_n - margin))
              * sum_p exp(-scale * a_p * (s_p - 1 + margin)))

    with `a_p = max(1 + margin - s_p, 0)` and `a_n = max(s_n + margin, 0)`, constants
    for the gradient (Sun et al., "Circle Loss", CVPR 2020, equations 6 to 8, with its
    values for re-identification). Where the triplet loss sees one pair of each kind,
    this sees all, weighted by how far they are from where they should be. Arithmetic is
    float32 (float64 for float64 input).

    Args:
        embeddings: `[B, D]`, floating; divided by their lengths here.
        labels: integer `[B]` identities. An anchor alone in its identity, or without an
            image of another, contributes 0 and counts in the mean.
        margin: in [0, 1], traced.
        scale: above 0, traced.

    Returns:
        The mean over the anchors, a scalar.

    Raises:
        ValueError: a wrong shape or type, a margin or a scale that is not one number in
            range.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> loss = circle(x, jnp.array([0, 0, 1, 1]), margin=0.25, scale=16.0)
        >>> exponent = 2 * 16 * 0.25 * -0.25 + jnp.log(2.0)  # two negatives, a positive
        >>> bool(jnp.allclose(loss, jnp.log1p(jnp.exp(exponent))))
        True
    """
    x = read_inputs(embeddings, "embeddings", "[B, D]")
    identities = check_ids(labels, "labels", size=x.shape[0], text=False)
    margin = read_option(margin, "margin", x, least=0, most=1)
    scale = read_option(scale, "scale", x, above=0)
    square = jnp.sum(x * x, axis=1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.where(square > 1e-24, square, 1e-24))
    cosine = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)  # [B, B]
    fixed = jax.lax.stop_gradient(cosine)
    push = jax.nn.relu(fixed + margin) * (cosine - margin)
    pull = -jax.nn.relu(1 + margin - fixed) * (cosine - 1 + margin)
    same = identities[:, None] == identities[None, :]
    others = same & ~np.eye(len(x), dtype=bool)
    both = jnp.any(others, axis=1) & jnp.any(~same, axis=1)
    # A sum over no pairs is -inf, whose gradient is not a number: it is never taken.
    exponent = [
        jax.nn.logsumexp(
            jnp.where(both[:, None], scale * term, 0),
            axis=1,
            where=pairs | ~both[:, None],
        )
        for term, pairs in ((push, ~same), (pull, others))
    ]
    loss = jax.nn.softplus(exponent[0] + exponent[1])
    return jnp.mean(jnp.where(both, loss, 0))
