"""What travels between the steps of a chain: embeddings in, a ranking out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dex_jax._checks import (
    check_count,
    check_queries,
    check_rows,
    check_same_width,
    is_concrete,
    unit_rows,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._lists import top
from dex_jax.neighbors._search import limit_k


class Embeddings(NamedTuple):
    """Queries and a gallery to search.

    Attributes:
        query: `[Q, D]` embeddings.
        gallery: `[G, D]` embeddings.
        tracklet_ids: `[G]` integers, equal for images of one track; None where the
            set has no tracklets.
    """

    query: ArrayLike
    gallery: ArrayLike
    tracklet_ids: ArrayLike | None = None


# The best gallery images of each query, ids and scores `[Q, K]`, best first.
Ranking = Neighbors


def top_k(scores: ArrayLike, *, k: int) -> Ranking:
    """Keeps the `k` best of each row of scores `[Q, G]`; ties to the lower index.

    Args:
        scores: `[Q, G]`, larger is better.
        k: images kept; beyond `G`: all of them, and one warning.

    Returns:
        Ranking of shape `[Q, K]`.

    Raises:
        ValueError: scores of another rank, or `k` below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> top_k(jnp.array([[0.1, 0.9, 0.5]]), k=2).ids.tolist()
        [[1, 2]]
    """
    scores = read_scores(scores, "scores")
    k = limit_k(check_count(k, "k"), scores.shape[1], "k")
    return best(scores, k)


def best(scores: jax.Array, k: int) -> Ranking:
    """`top_k` without checks, for use inside the package."""
    return top(scores, k)


class Pair(NamedTuple):
    """Queries and gallery as kernels take them.

    Attributes:
        query: `[Q, D]` unit rows; those from `number` on repeat the last query: see
            `check_queries`.
        gallery: `[G, D]` unit rows.
        number: how many queries there are.
    """

    query: jax.Array
    gallery: jax.Array
    number: int

    @property
    def queries(self) -> jax.Array:
        """`number`, for a compiled program that serves other counts too."""
        return jnp.asarray(self.number, jnp.int32)


def read_pair(query: ArrayLike, gallery: ArrayLike) -> Pair:
    """Reads queries and gallery at the public border and scales rows to unit length."""
    gallery = check_rows(gallery, "gallery")
    query, count = check_queries(query, "query")
    check_same_width(query, gallery, "query", "gallery")
    return Pair(unit_rows(query), unit_rows(gallery), count)


def read_scores(x: ArrayLike, name: str) -> jax.Array:
    """Reads scores `[Q, G]` as float32 and refuses another shape or NaN."""
    scores = jnp.asarray(x, jnp.float32)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"{name}: expected scores [Q, G], got shape {scores.shape}")
    missing = jnp.any(jnp.isnan(scores), axis=1)
    if is_concrete(missing) and missing.any():
        raise ValueError(f"{name}: row {int(missing.argmax())} holds NaN")
    return scores
