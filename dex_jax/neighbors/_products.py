"""Cosines as products of unit rows, at a chosen precision.

All cosines of searches and of scores are computed here.
"""

import jax
import jax.numpy as jnp
from jax import lax

PRECISIONS = ("highest", "tf32x3", "high", "default")
# Strips in which a block is multiplied with itself: 4 compute 5/8 of its cosines, where
# half would do. More strips would multiply less and copy more.
_STRIPS = 4


def cosines(a: jax.Array, b: jax.Array, precision: str = "highest") -> jax.Array:
    """Cosines `[M, N]` of unit rows `[M, D]` and `[N, D]`.

    "tf32x3" is three products of TF32 on an accelerator, with each factor split into a
    large and a small part; a CPU has no such arithmetic and takes float32. The other
    words are those of `jax.lax.Precision`.
    """
    if precision == "tf32x3":
        if jax.default_backend() == "cpu":
            return jnp.matmul(a, b.T, precision="highest")
        return lax.dot_general(
            a,
            b,
            (((1,), (1,)), ((), ())),
            precision=lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
        )
    return jnp.matmul(a, b.T, precision=precision)


def square(rows: jax.Array, precision: str) -> jax.Array:
    """Cosines of a block with itself `[R, R]`, most of them computed once."""
    R = rows.shape[0]
    size = -(-R // _STRIPS)
    scores = jnp.zeros((R, R), rows.dtype)
    for start in range(0, R, size):
        end = min(start + size, R)
        # From the diagonal to the right end: [size, R - start].
        strip = cosines(rows[start:end], rows[start:], precision)
        scores = lax.dynamic_update_slice(scores, strip, (start, start))
        mirrored = strip[:, end - start :].T
        scores = lax.dynamic_update_slice(scores, mirrored, (end, start))
    return scores
