"""The inputs and results of re-ranking: embeddings, rankings, and their checks.

Queries and gallery are read here, scaled to unit length and, for queries, padded.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import (
    ArrayLike,
    check_count,
    check_same_width,
    host_value,
    is_concrete,
    narrow_scores,
    on_any_mesh,
    ranked_scores,
    read_array,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._padding import check_queries, first_rows
from dex_jax.neighbors._search import limit_k, search
from dex_jax.neighbors._selection import top
from dex_jax.neighbors._split import SplitRows, check_gallery, counted
from dex_jax.neighbors._units import unit_pair


class Embeddings(NamedTuple):
    """Queries and a gallery to search; checked where a chain or step reads them.

    Attributes:
        query: `[Q, D]` numbers, finite, any row length but zero; read as float32.
        gallery: `[G, D]`, the same.
        tracklet_ids: `[G]` integers or text, equal for images of one track; -1 is no
            track, and such an image stands alone. None where the set has no tracklets.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> Embeddings(rows[:1], rows).tracklet_ids is None
        True
    """

    query: ArrayLike
    gallery: ArrayLike | SplitRows
    tracklet_ids: ArrayLike | None = None


# The best gallery images of each query, best first: ids [Q, K] int32 and scores [Q, K]
# float32. Lists of neighbours are the same thing, so it is one type with two names.
Ranking = Neighbors


@on_any_mesh
def top_k(scores: ArrayLike, *, k: int) -> Ranking:
    """Keeps the `k` best of each row of scores `[Q, G]`; ties to the lower index.

    Scores are ranked in the type that they have, float64 and 64-bit integers too, and
    only then rounded to float32. Arrays that jax traces, or holds as float32, are
    ranked by its kernels, for which numbers below 1.2e-38 in size are zero.

    Args:
        scores: `[Q, G]` real numbers, larger is better; infinities are numbers too.
        k: images kept, at least 1; beyond `G`: all of them, and one warning.

    Returns:
        Ranking: ids int32 and scores float32, each `[Q, K]`, best first. A score that
        float32 cannot hold is infinite there.

    Raises:
        ValueError: scores of another rank, that are no real numbers (complex ones and
            booleans are none) or with NaN, or `k` below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> top_k(jnp.array([[0.1, 0.9, 0.5]]), k=2).ids.tolist()
        [[1, 2]]
    """
    given = read_array(scores, "scores")
    order = ranked_scores(given, "scores")
    k = limit_k(check_count(k, "k"), order.shape[1], "k")
    found = best(order, k)
    if isinstance(given, jax.Array) and jnp.can_cast(given.dtype, jnp.float32):
        return found
    # What was ranked may be ranks; the scores are rounded only now.
    if isinstance(given, jax.Array) or not is_concrete(found.ids):
        values = jnp.take_along_axis(jnp.asarray(given), found.ids, axis=1)
        return Ranking(found.ids, values.astype(jnp.float32))
    values = np.take_along_axis(given, host_value(found.ids), axis=1)
    with np.errstate(over="ignore", under="ignore"):
        return Ranking(found.ids, jnp.asarray(values.astype(np.float32)))


def best(scores: jax.Array, k: int) -> Ranking:
    """`top_k` without checks, for use inside the package."""
    return top(scores, k)


class Pair(NamedTuple):
    """Queries and gallery as kernels take them.

    Attributes:
        query: `[Q, D]` unit rows, Q being a padded size; rows from `number` on repeat
            the last query (see `check_queries`) and are cut off from every result.
        gallery: `[G, D]` unit rows; those from `images` on repeat the last image (see
            `SplitRows`) and are cut off from every result too.
        number: how many queries there are.
        images: how many images there are.
    """

    query: jax.Array
    gallery: jax.Array
    number: int
    images: int

    @property
    def queries(self) -> jax.Array:
        """`number` as a scalar int32, for programs that must leave the padding out."""
        # An array and not a static int: one program serves all counts.
        return jnp.asarray(self.number, jnp.int32)


def read_pair(query: ArrayLike, gallery: ArrayLike | SplitRows) -> Pair:
    """Reads queries and gallery at the public border and scales rows to unit length."""
    rows, images = check_gallery(gallery, "gallery")
    queries, count = check_queries(query, "query")
    check_same_width(queries, rows, "query", "gallery")
    queries, rows = unit_pair(queries, rows, jnp.asarray(count, jnp.int32))
    return Pair(queries, rows, count, images)


def search_pair(pair: Pair, *, k: int) -> Neighbors:
    """The `k` nearest images of each query, `[Q, k]`."""
    valid = counted(pair.gallery, pair.images)
    return search(pair.query, pair.gallery, k=k, valid=valid)


def all_asked(scores: jax.Array, pair: Pair) -> jax.Array:
    """Scores of the queries and images that there are, without those of padding."""
    scores = first_rows(scores, pair.number)
    return scores if scores.shape[1] == pair.images else scores[:, : pair.images]


def read_scores(x: ArrayLike, name: str) -> jax.Array:
    """Reads scores `[Q, G]` as float32 to calculate with; see `narrow_scores`."""
    # Infinities pass: -inf masks an image.
    return narrow_scores(x, name)
