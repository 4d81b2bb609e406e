"""The inputs and results of re-ranking: embeddings, rankings, and their checks.

Queries and gallery are read here, scaled to unit length and, for queries, padded.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dex_jax._checks import check_count, check_rows, check_same_width, is_concrete
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._padding import check_queries
from dex_jax.neighbors._search import limit_k
from dex_jax.neighbors._selection import top
from dex_jax.neighbors._units import unit_pair


class Embeddings(NamedTuple):
    """Queries and a gallery to search; checked where a chain or step reads them.

    Attributes:
        query: `[Q, D]` numbers, finite, any row length but zero; read as float32.
        gallery: `[G, D]`, the same.
        tracklet_ids: `[G]` integers, equal for images of one track; None where the
            set has no tracklets.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> Embeddings(rows[:1], rows).tracklet_ids is None
        True
    """

    query: ArrayLike
    gallery: ArrayLike
    tracklet_ids: ArrayLike | None = None


# The best gallery images of each query, best first: ids [Q, K] int32 and scores [Q, K]
# float32. Lists of neighbours are the same thing, so it is one type with two names.
Ranking = Neighbors


def top_k(scores: ArrayLike, *, k: int) -> Ranking:
    """Keeps the `k` best of each row of scores `[Q, G]`; ties to the lower index.

    Args:
        scores: `[Q, G]` numbers, larger is better; read as float32.
        k: images kept, at least 1; beyond `G`: all of them, and one warning.

    Returns:
        Ranking: ids int32 and scores float32, each `[Q, K]`, best first.

    Raises:
        ValueError: scores of another rank or with NaN, or `k` below 1.

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
        query: `[Q, D]` unit rows, Q being a padded size; rows from `number` on repeat
            the last query (see `check_queries`) and are cut off from every result.
        gallery: `[G, D]` unit rows.
        number: how many queries there are.
    """

    query: jax.Array
    gallery: jax.Array
    number: int

    @property
    def queries(self) -> jax.Array:
        """`number` as a scalar int32, for programs that must leave the padding out."""
        # An array and not a static int: one program serves all counts.
        return jnp.asarray(self.number, jnp.int32)


def read_pair(query: ArrayLike, gallery: ArrayLike) -> Pair:
    """Reads queries and gallery at the public border and scales rows to unit length."""
    images = check_rows(gallery, "gallery")
    queries, count = check_queries(query, "query")
    check_same_width(queries, images, "query", "gallery")
    number = jnp.asarray(count, jnp.int32)
    queries, images = unit_pair(queries, images, number)
    return Pair(queries, images, count)


def read_scores(x: ArrayLike, name: str) -> jax.Array:
    """Reads scores `[Q, G]` as float32 and refuses another shape or NaN."""
    scores = jnp.asarray(x, jnp.float32)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"{name}: expected scores [Q, G], got shape {scores.shape}")
    missing = jnp.any(jnp.isnan(scores), axis=1)  # [Q]
    # Infinities pass: -inf masks an image.
    if is_concrete(missing) and missing.any():
        raise ValueError(f"{name}: row {int(missing.argmax())} holds NaN")
    return scores
