"""Query expansion (section 3.2): AQE, alpha-QE (eq. 6) and DEx (eq. 5-6).

Each adds gallery rows to a query: its nearest images, or the images of the tracklets
whose means are nearest.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    Count,
    check_choice,
    check_ids,
    check_masked_count,
    check_number,
    on_any_mesh,
    replicated,
    unit_rows,
)
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._blocks import Blocks, repeat, take_rows
from dex_jax.neighbors._form import by_form
from dex_jax.neighbors._padding import first_rows
from dex_jax.neighbors._search import limit_count, search
from dex_jax.neighbors._split import SplitRows
from dex_jax.neighbors._units import unit_set
from dex_jax.rerank._embeddings import Pair, read_pair, search_pair
from dex_jax.rerank._tracklets import Tracklets, group_tracklets, tracklet_means_of

# Rows summed at a time: on a CPU the running sum of a block stays in the cache.
_CPU_ROWS, _WIDE_ROWS = 512, 2**17
# Neighbours added in one trip of the loop: XLA fuses their gathers into one pass.
_UNROLL = 4
WITHIN = ("index", "similarity")


@on_any_mesh
def average_query_expansion(
    query: ArrayLike,
    gallery: ArrayLike | SplitRows,
    *,
    k: int | jax.Array = 20,
    k_max: int | None = None,
) -> jax.Array:
    """Adds to each query the mean direction of its `k` nearest gallery images.

    Section 3.2: `q' = l2(q + sum of the k nearest g)`; alpha-QE at `alpha=0`.

    Outside of `jit` and on one device queries are padded inside to few sizes (see
    `nearest_neighbors`), so that other numbers of queries reuse compiled programs. CPUs
    and accelerators run different kernels, whose sums differ by rounding (see
    `dex_jax.neighbors.form`). The same holds for the other expansions.

    Can be differentiated in `query` and `gallery`, in forward and reverse mode: which
    images are added is held fixed.

    Args:
        query: `[Q, D]` numbers, finite, any row length but zero; read as float32.
        gallery: `[G, D]`, the same.
        k: neighbours added, at least 1; beyond `G`: all of them, and one warning.
        k_max: if given, the static width of the lists, and `k` may be traced: what lies
            beyond `k` is masked. Beyond `G`: all of them, and one warning.

    Returns:
        The expanded queries `[Q, D]`, unit rows of float32.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, `k` below 1,
            above `k_max`, or traced without it.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
        >>> average_query_expansion(jnp.array([[1.0, 0.0]]), gallery, k=1).round(3)
        Array([[0.707, 0.707]], dtype=float32)
    """
    return alpha_query_expansion(query, gallery, k=k, alpha=0.0, k_max=k_max)


@on_any_mesh
def alpha_query_expansion(
    query: ArrayLike,
    gallery: ArrayLike | SplitRows,
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    k_max: int | None = None,
) -> jax.Array:
    """Adds to each query its `k` nearest gallery images, weighted by similarity.

    Eq. 6 over plain neighbours: `q' = l2(q + sum of g * max(cos, 0)^alpha)`. The query
    has weight 1. A negative cosine is clipped at 0, since its fractional power is not
    a number and its even power would reward opposite images; the paper is silent.

    Can be differentiated in `query`, `gallery` and `alpha`, as there; weights that are
    clipped have the derivative 0.

    Args:
        query: `[Q, D]`, as in `average_query_expansion`.
        gallery: `[G, D]`, as there.
        k: neighbours added, as there.
        alpha: power of the cosine, at least 0; may be traced.
        k_max: the largest `k` where that is traced, as there.

    Returns:
        The expanded queries `[Q, D]`, unit rows of float32.

    Raises:
        ValueError: as there, or `alpha` below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[0.6, 0.8], [-1.0, 0.0]])
        >>> q = alpha_query_expansion(jnp.array([[1.0, 0.0]]), gallery, k=1, alpha=1.0)
        >>> q.round(3)  # the direction of (1, 0) + 0.6 * (0.6, 0.8)
        Array([[0.943, 0.333]], dtype=float32)
    """
    alpha = check_number(alpha, "alpha", least=0)
    asked = check_masked_count(k, k_max, "k")
    pair = read_pair(query, gallery)
    count = limit_count(asked, pair.images, "k")
    expanded = expand_over_images(pair, count, alpha=alpha)
    return replicated(first_rows(expanded, pair.number))


def expand_over_images(
    pair: Pair, count: Count, *, alpha: float | jax.Array
) -> jax.Array:
    """`alpha_query_expansion` of unit rows and limited count."""
    found = search_pair(pair, k=count.width)
    return expand(pair.query, pair.gallery, found, alpha=alpha, k=count.value)


@on_any_mesh
def tracklet_query_expansion(
    query: ArrayLike,
    gallery: ArrayLike | SplitRows,
    tracklet_ids: ArrayLike,
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    within: str = "index",
    k_max: int | None = None,
) -> jax.Array:
    """Expands each query over the images of its nearest tracklets (DEx, eq. 5-6).

    Eq. 5: tracklets are ranked by the cosine of their mean embedding to the query and
    replaced by their images. Eq. 6: the first `k` images of that order are added with
    the weight `max(cos, 0)^alpha` of the image. Only the queries change. The paper does
    not say in which order the images of a tracklet stand, nor whether `k` counts
    images. Can be differentiated like `alpha_query_expansion`.

    Args:
        query: `[Q, D]`, as in `average_query_expansion`.
        gallery: `[G, D]`, as there.
        tracklet_ids: `[G]` integers or text, equal for images of one track; -1 is no
            track: such an image stands alone.
        k: images added, as there.
        alpha: power of the cosine, at least 0; may be traced.
        within: order inside a tracklet: "index" of the gallery, or falling
            "similarity" to the query. It matters for the last, cut tracklet alone.
        k_max: the largest `k` where that is traced, as there.

    Returns:
        The expanded queries `[Q, D]`, unit rows of float32.

    Raises:
        ValueError: as there, or tracklet ids of another length or type, `alpha` below
            0, another word for `within`.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[0.8, 0.6], [-1.0, 0.0], [0.6, 0.8]])
        >>> query, tracklets = jnp.array([[1.0, 0.0]]), jnp.array([7, 3, 7])
        >>> tracklet_query_expansion(query, gallery, tracklets, k=2, alpha=0).round(3)
        Array([[0.864, 0.504]], dtype=float32)
    """
    alpha = check_number(alpha, "alpha", least=0)
    check_choice(within, "within", WITHIN)
    asked = check_masked_count(k, k_max, "k")
    pair = read_pair(query, gallery)
    ids = check_ids(tracklet_ids, "tracklet_ids", size=pair.images)
    count = limit_count(asked, pair.images, "k")
    expanded = expand_over_tracklets(
        pair, group_tracklets(ids), count, alpha=alpha, within=within
    )
    return replicated(first_rows(expanded, pair.number))


def expand_over_tracklets(
    pair: Pair,
    tracklets: Tracklets,
    count: Count,
    *,
    alpha: float | jax.Array,
    within: str,
) -> jax.Array:
    """`tracklet_query_expansion` of unit rows, grouped tracklets and limited count."""
    query, gallery = pair.query, pair.gallery
    found = tracklet_neighbors(
        query, gallery, tracklets, count.value, k=count.width, within=within
    )
    return expand(query, gallery, found, alpha=alpha, k=count.value)


@jax.jit
def expand(
    query: jax.Array,
    gallery: jax.Array,
    neighbors: Neighbors,
    *,
    alpha: float | jax.Array,
    k: jax.Array | None = None,
) -> jax.Array:
    """Eq. 6 on unit rows and neighbours `[Q, K]`; of these only the first `k` count."""
    weights = first_few(clipped_power(neighbors.scores, alpha), k)  # [Q, K]
    rows = unit_rows(add_rows(query, gallery, neighbors.ids, weights))
    # Rows of zeros have no direction, and so no neighbours.
    return jnp.where(jnp.any(query != 0, axis=1, keepdims=True), rows, 0)


def clipped_power(cosine: jax.Array, alpha: float | jax.Array) -> jax.Array:
    """`max(cosine, 0)^alpha`, and 1 everywhere at `alpha` 0.

    The score -inf of an empty entry gives 0. What is clipped has the derivative 0 in
    the cosine and in `alpha`.
    """
    power = jnp.asarray(alpha, cosine.dtype)
    above = cosine > 0
    # The power of a clipped 0 would have an infinite or undefined derivative, which the
    # choice below would multiply by 0: 1 stands in its place.
    raised = jnp.where(above, cosine, jnp.ones((), cosine.dtype)) ** power
    rest = jnp.where((power == 0) & (cosine > -jnp.inf), 1, 0).astype(cosine.dtype)
    return jnp.where(above, raised, rest)


def first_few(weights: jax.Array, k: jax.Array | None) -> jax.Array:
    """Weights `[M, K]` of lists, with 0 from entry `k` on; unchanged if `k` is None."""
    if k is None:
        return weights
    counts = jnp.arange(weights.shape[1], dtype=jnp.int32)[None] < k
    return jnp.where(counts, weights, jnp.zeros((), weights.dtype))


def add_rows(
    base: jax.Array, rows: jax.Array, ids: jax.Array, weights: jax.Array
) -> jax.Array:
    """Adds to `base` `[M, D]` the weighted `rows` `[N, D]` of lists `[M, K]`.

    The sum runs through a list from left to right, so that equal lists give equal bits.
    Never holds `M x K x D` numbers, in reverse mode either.
    """
    M, K = ids.shape
    blocks = Blocks(M, min(M, by_form(cpu=_CPU_ROWS, wide=_WIDE_ROWS)))
    pad = ((0, 0), (0, -K % _UNROLL))
    lists = jnp.pad(ids, pad), jnp.pad(weights, pad)

    def block(i: jax.Array, out: jax.Array) -> jax.Array:
        own_ids, own_weights = (x.T for x in blocks.take(lists, i))  # [K, b]

        # In reverse mode rows are gathered anew instead of kept.
        @jax.checkpoint
        def trip(j: jax.Array, total: jax.Array) -> jax.Array:
            for u in range(_UNROLL):
                slot = j * _UNROLL + u
                row = take_rows(rows, own_ids[slot])  # [b, D]
                total = total + own_weights[slot][:, None] * row
            return total

        # [b, D], begun with the block's own rows
        total = repeat(len(own_ids) // _UNROLL, trip, blocks.take(base, i))
        return blocks.put(out, total, i)

    return repeat(blocks.number, block, jnp.zeros_like(base))


@functools.partial(jax.jit, static_argnames=("k", "within"))
def tracklet_neighbors(
    query: jax.Array,
    gallery: jax.Array,
    tracklets: Tracklets,
    cut: jax.Array | None = None,
    *,
    k: int,
    within: str,
) -> Neighbors:
    """Finds the first `k` images `[Q, k]` of tracklets ranked by their means' cosines.

    Eq. 5 without a `Q x G` array: the first `k` images belong to the first `k`
    tracklets, and a running sum of their sizes says which image stands at a place.
    The first `cut` images, all if None, are right as if `k` were `cut`.
    """
    means = unit_set(tracklet_means_of(gallery, tracklets))  # [T, D]
    T = means.shape[0]
    ranked = search(query, means, k=min(k, T), valid=tracklets.counts > 0).ids
    end = jnp.cumsum(tracklets.counts[ranked], axis=1)  # [Q, min(k, T)]
    places = jnp.arange(k, dtype=jnp.int32)
    # The number of tracklets that end at or before a place is the rank of its own.
    slot = jax.vmap(lambda e: jnp.searchsorted(e, places, side="right"))(end)  # [Q, k]
    tracklet = jnp.take_along_axis(ranked, slot, axis=1)
    # The place of the first image of that tracklet.
    first = jnp.take_along_axis(end, slot, axis=1) - tracklets.counts[tracklet]
    ids = tracklets.order[tracklets.starts[tracklet] + places[None] - first]
    if within == "similarity":
        # A sum over a whole tracklet is the same in any order: only the last one, which
        # may be cut, is ranked inside.
        at = -1 if cut is None else cut - 1
        last = tracklet[:, at]
        best = _best_inside(query, gallery, tracklets.labels, last, k)
        inside = jnp.take_along_axis(best, places[None] - first, axis=1)
        ids = jnp.where(slot == slot[:, at][:, None], inside, ids)
    return Neighbors(ids, pair_cosines(query, gallery, ids))


def _best_inside(
    query: jax.Array, gallery: jax.Array, labels: jax.Array, wanted: jax.Array, k: int
) -> jax.Array:
    """The best `k` images `[Q, k]` of one wanted tracklet `[Q]` for each query."""
    # Indices have no derivative.
    fixed, query = lax.stop_gradient((gallery, query))

    # 64 queries at a time hold scores [64, G].
    def one_query(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        q, label = pair
        scores = jnp.matmul(fixed, q, precision="highest")
        scores = scores[: labels.shape[0]]  # [G], without padding
        return lax.top_k(jnp.where(labels == label, scores, -jnp.inf), k)[1]

    return lax.map(one_query, (query, wanted), batch_size=min(64, query.shape[0]))


def pair_cosines(query: jax.Array, gallery: jax.Array, ids: jax.Array) -> jax.Array:
    """Cosines `[Q, K]` of unit queries to the listed unit gallery rows."""

    # One entry of all lists at a time: gathers [Q, D], not [Q, K, D], and gathers anew
    # in reverse mode.
    @jax.checkpoint
    def slot(column: jax.Array) -> jax.Array:
        rows = gallery.at[column].get(mode="promise_in_bounds")  # [Q, D]
        return jnp.sum(query * rows, axis=1)

    return lax.map(slot, ids.T).T
