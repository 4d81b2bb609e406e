"""Database augmentation (DBA, section 3.2): gallery images smoothed by neighbours.

Each gallery row becomes the weighted sum of itself and its nearest gallery rows.
"""

import functools
from typing import Any, overload

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    Count,
    check_choice,
    check_masked_count,
    check_number,
    on_any_mesh,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._search import limit_count, self_lists
from dex_jax.neighbors._split import (
    SplitRows,
    as_given,
    check_gallery,
    repeat_last,
)
from dex_jax.neighbors._units import unit_set
from dex_jax.rerank._query_expansion import add_rows, clipped_power, first_few

INCLUDE_SELF = ("plus", "top_k")


@overload
def database_augmentation(
    gallery: SplitRows,
    *,
    k: int | jax.Array = 10,
    alpha: float | jax.Array = 0.0,
    include_self: str = "plus",
    k_max: int | None = None,
) -> SplitRows: ...
@overload
def database_augmentation(
    gallery: ArrayLike,
    *,
    k: int | jax.Array = 10,
    alpha: float | jax.Array = 0.0,
    include_self: str = "plus",
    k_max: int | None = None,
) -> jax.Array: ...
@on_any_mesh
def database_augmentation(
    gallery: ArrayLike | SplitRows,
    *,
    k: int | jax.Array = 10,
    alpha: float | jax.Array = 0.0,
    include_self: str = "plus",
    k_max: int | None = None,
) -> jax.Array | SplitRows:
    """Replaces each gallery image by a sum over its `k` nearest ones (DBA).

    Section 3.2: `g' = l2(g + sum of the k nearest others * max(cos, 0)^alpha)`. Changes
    the gallery alone. At `alpha` 0 images of equal neighbour sets become equal bit by
    bit, since neighbours are summed in gallery order: they tie exactly in a search.
    CPUs and accelerators run different kernels, and rows differ by rounding; see
    `dex_jax.neighbors.form`. Can be differentiated in `gallery` and `alpha`, in forward
    and reverse mode: which neighbours are summed is held fixed.

    Args:
        gallery: `[G, D]` numbers, finite, any row length but zero; read as float32.
        k: neighbours summed, at least 1; beyond what there is: all of them, and one
            warning.
        alpha: power of the cosine, at least 0; may be traced.
        include_self: "plus" adds `k` others to the image itself; "top_k" sums the `k`
            nearest with the image counted as one of them.
        k_max: if given, the static width of the lists, and `k` may be traced: what lies
            beyond `k` is masked. Beyond what there is: all of them, and one warning.

    Returns:
        The augmented gallery `[G, D]`, unit rows of float32; SplitRows where it was.

    Raises:
        ValueError: rows that cannot be ranked, `k` below 1, above `k_max` or traced
            without it, `alpha` below 0, another word for `include_self`.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1]])
        >>> database_augmentation(gallery, k=1)[0].round(3)
        Array([0.707, 0.707], dtype=float32)
    """
    count, alpha = read_options(
        k=k, alpha=alpha, include_self=include_self, k_max=k_max
    )
    rows, images = check_gallery(gallery, "gallery")
    rows = unit_set(rows)
    read = entries(count, images, include_self=include_self)
    graph = self_lists(rows, k=read.width, size=images)
    rows = augment(rows, graph, read.value, alpha=alpha, include_self=include_self)
    return as_given(repeat_last(rows, images), gallery)


def read_options(
    *,
    k: int | jax.Array,
    alpha: float | jax.Array,
    include_self: str,
    k_max: int | None,
) -> tuple[Count, Any]:
    """Reads `k` with its maximum, and `alpha`; refuses options out of range."""
    alpha = check_number(alpha, "alpha", least=0)
    check_choice(include_self, "include_self", INCLUDE_SELF)
    return check_masked_count(k, k_max, "k"), alpha


def entries(count: Count, size: int, *, include_self: str) -> Count:
    """Entries of the gallery's own lists, the row itself counted, that are read."""
    if include_self == "top_k":
        return limit_count(count, size, "k")
    # k others, and the row itself, which stands in its own list.
    width, value = limit_count(count, size - 1, "k")
    return Count(width + 1, None if value is None else value + 1)


@functools.partial(jax.jit, static_argnames=("include_self",))
def augment(
    gallery: jax.Array,
    graph: Neighbors,
    read: jax.Array | None = None,
    *,
    alpha: float | jax.Array,
    include_self: str,
) -> jax.Array:
    """DBA on unit rows `[G, D]` and their own lists `[G, K]`, the row itself counted.

    Only the first `read` entries of a list count, all of them if None.
    """
    ids, weights = graph.ids, clipped_power(graph.scores, alpha)  # [G, K]
    if include_self == "plus":
        ids, weights = _with_self(ids, weights, read)
    weights = first_few(weights, read)
    # In gallery order: sums of the same rows in the same order have the same bits.
    ids, weights = lax.sort((ids, weights), num_keys=1)
    rows = unit_set(add_rows(jnp.zeros_like(gallery), gallery, ids, weights))
    # Rows of zeros have no direction, and so no neighbours to be smoothed by.
    return jnp.where(jnp.any(gallery != 0, axis=1, keepdims=True), rows, 0)


def _with_self(
    ids: jax.Array, weights: jax.Array, read: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Gives the row itself the weight 1 in its own list, whatever its place there."""
    row = jnp.arange(ids.shape[0], dtype=ids.dtype)
    # Where duplicates of lower index fill the list, the row takes the last one's place.
    present = jnp.any(first_few(ids == row[:, None], read), axis=1)
    last = -1 if read is None else read - 1
    ids = ids.at[:, last].set(jnp.where(present, ids[:, last], row))
    return ids, jnp.where(ids == row[:, None], 1, weights)
