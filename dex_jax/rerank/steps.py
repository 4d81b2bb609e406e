"""The steps of a chain: functions of `dex_jax.rerank` with their options bound.

Each function here checks its options at once, before any data are touched, and returns
a step for `chain`. Options, defaults and errors (`ValueError` for a value out of range)
are those of the function that its docstring names.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dex_jax._checks import ArrayLike, check_choice, check_masked_count, check_number
from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._search import limit_count
from dex_jax.neighbors._split import repeat_last
from dex_jax.rerank import _database_augmentation as augmentation
from dex_jax.rerank import _diffusion as graph_diffusion
from dex_jax.rerank import _k_reciprocal as reciprocal
from dex_jax.rerank._embeddings import Ranking, read_scores, search_pair
from dex_jax.rerank._fusion import (
    bias_tile,
    cosine_scan,
    pair_sizes,
    penalty_tile,
    read_penalty,
    read_sides,
    read_weight,
    sum_tile,
)
from dex_jax.rerank._k_reciprocal_tracklets import with_tracklet_scan
from dex_jax.rerank._kinds import (
    BY_PAIR,
    BY_SIDE,
    Expand,
    Pairwise,
    Rank,
    Refine,
    State,
    known,
)
from dex_jax.rerank._noted import noted
from dex_jax.rerank._query_expansion import (
    WITHIN,
    expand_over_images,
    expand_over_tracklets,
)
from dex_jax.rerank._scan import Scan
from dex_jax.rerank._tracklets import (
    ORDERS,
    averaged,
    check_shares,
    pull_in_ranking,
    pull_in_scores,
    read_shares,
)

__all__ = [
    "add_scores",
    "alpha_qe",
    "aqe",
    "cosine",
    "dba",
    "dex",
    "diffusion",
    "k_reciprocal",
    "same_camera",
    "side_bias",
    "tracklet",
    "tracklet_k_reciprocal",
    "tracklet_means",
]


@noted
def aqe(*, k: int | jax.Array = 20, k_max: int | None = None) -> Expand:
    """Average query expansion; see `average_query_expansion`.

    Example:
        >>> aqe(k=10)
        aqe(k=10)
    """
    return Expand("aqe", alpha_qe(k=k, alpha=0.0, k_max=k_max).apply)


@noted
def alpha_qe(
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    k_max: int | None = None,
) -> Expand:
    """Alpha-weighted query expansion (eq. 6); see `alpha_query_expansion`.

    Example:
        >>> alpha_qe(k=20, alpha=3.0)  # k is at its default
        alpha_qe(alpha=3)
    """
    asked = check_masked_count(k, k_max, "k")
    alpha = check_number(alpha, "alpha", least=0)

    def apply(state: State, lists: NeighborLists | None) -> State:
        # Only now is G known: more than G becomes G, with a warning.
        count = limit_count(asked, state.pair.images, "k")
        return state.with_query(expand_over_images(state.pair, count, alpha=alpha))

    return Expand("alpha_qe", apply)


@noted
def dex(
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    within: str = "index",
    k_max: int | None = None,
) -> Expand:
    """DEx, query expansion over tracklets (eq. 5-6); see `tracklet_query_expansion`.

    Needs tracklet ids.

    Example:
        >>> dex(k=10, within="similarity")
        dex(k=10,within=similarity)
    """
    asked = check_masked_count(k, k_max, "k")
    alpha = check_number(alpha, "alpha", least=0)
    check_choice(within, "within", WITHIN)

    def apply(state: State, lists: NeighborLists | None) -> State:
        pair, tracklets = state.pair, known(state.tracklets)
        count = limit_count(asked, pair.images, "k")
        return state.with_query(
            expand_over_tracklets(pair, tracklets, count, alpha=alpha, within=within)
        )

    return Expand("dex", apply, needs_tracklets=True)


@noted
def dba(
    *,
    k: int | jax.Array = 10,
    alpha: float | jax.Array = 0.0,
    include_self: str = "plus",
    k_max: int | None = None,
) -> Expand:
    """Database augmentation (section 3.2); see `database_augmentation`.

    Example:
        >>> dba(k=5, include_self="top_k")
        dba(k=5,include_self=top_k)
    """
    asked, alpha = augmentation.read_options(
        k=k, alpha=alpha, include_self=include_self, k_max=k_max
    )

    def apply(state: State, lists: NeighborLists | None) -> State:
        images = state.pair.images
        read = augmentation.entries(asked, images, include_self=include_self)
        gallery = augmentation.augment(
            state.pair.gallery,
            known(lists).first(read.width),
            read.value,
            alpha=alpha,
            include_self=include_self,
        )
        return state.with_gallery(repeat_last(gallery, images))

    def width(size: int) -> int:
        # With "plus" the image itself comes on top of the k others.
        return min(asked.width + int(include_self == "plus"), size)

    return Expand("dba", apply, width, changes_gallery=True)


@noted
def tracklet_means(*, weights: ArrayLike | None = None) -> Expand:
    """Gallery images replaced by the mean of their tracklet; see `tracklet_means`.

    Needs tracklet ids. `weights` are `[G]`, one for each gallery image.

    Example:
        >>> tracklet_means()
        tracklet_means
    """
    shares = read_shares(weights)

    def apply(state: State, lists: NeighborLists | None) -> State:
        tracklets = known(state.tracklets)
        fitting = check_shares(shares, tracklets)
        return state.with_gallery(averaged(state.pair.gallery, tracklets, fitting))

    return Expand("tracklet_means", apply, changes_gallery=True, needs_tracklets=True)


@noted
def cosine() -> Rank:
    """Plain cosine similarity, the rank step of a chain without one.

    See `cosine_similarity`.

    Example:
        >>> cosine()
        cosine
    """

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return use(cosine_scan(state.pair))

    return Rank("cosine", scan)


@noted
def k_reciprocal(
    *,
    k1: int | jax.Array = 60,
    k2: int | jax.Array = 30,
    lambda_: float | jax.Array = 0.5,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal re-ranking (eq. 7-8); see `dex_jax.rerank.k_reciprocal`.

    Example:
        >>> k_reciprocal(k1=20, lambda_=0.3)
        k_reciprocal(k1=20,lambda_=0.3)
    """
    options = reciprocal.read_options(k1, k2, lambda_, k1_max, k2_max)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return reciprocal.with_sizes(state.pair, lists, options, use)

    def width(size: int) -> int:
        # Lists of k1 others and the image itself, of which the first k2 are averaged.
        return min(max(options.k1.width + 1, options.k2.width), size)

    return Rank("k_reciprocal", scan, width)


@noted
def diffusion(
    *,
    k: int | jax.Array = 50,
    k_query: int | jax.Array = 25,
    alpha: float | jax.Array = 0.95,
    gamma: float | jax.Array = 3.0,
    iterations: int | jax.Array = graph_diffusion.POWER_STEPS,
    solver: str = "power",
    initial: str = "y",
    k_max: int | None = None,
    k_query_max: int | None = None,
    remat: bool = False,
) -> Rank:
    """Diffusion over the gallery's graph (eq. 9-10); see `dex_jax.rerank.diffusion`.

    Example:
        >>> diffusion(k=50, solver="cg")
        diffusion(solver=cg)
    """
    counts = graph_diffusion.check_counts(k, k_query, k_max, k_query_max)
    options, solve = graph_diffusion.read_options(
        alpha, gamma, iterations, solver, initial, remat=remat
    )
    # These counts mask list entries; one beyond the gallery masks nothing, so they need
    # not be limited to it.
    options = options._replace(k=counts[0].value, k_query=counts[1].value)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        own, near = graph_diffusion.limit_counts(counts, state.pair.images)
        start = search_pair(state.pair, k=near.width)  # [Q, k_query]
        graph = known(lists).first(own.width)  # [G, k]
        return use(
            graph_diffusion.diffusion_scan(start, graph, options, solve, state.pair)
        )

    return Rank("diffusion", scan, lambda size: min(counts[0].width, size))


@noted
def tracklet_k_reciprocal(
    *,
    k1: int | jax.Array = 7,
    k2: int | jax.Array = 2,
    lambda_: float | jax.Array = 0.6,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal of queries against tracklets; see `tracklet_k_reciprocal`.

    Needs tracklet ids.

    Example:
        >>> tracklet_k_reciprocal(k1=5)
        tracklet_k_reciprocal(k1=5)
    """
    options = reciprocal.read_options(k1, k2, lambda_, k1_max, k2_max)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return with_tracklet_scan(state.pair, known(state.tracklets), options, use)

    # No width: the gallery's lists are of images, and the pool here is of tracklets.
    return Rank("tracklet_k_reciprocal", scan, needs_tracklets=True)


@noted
def tracklet(*, order: str = "gallery") -> Refine:
    """Pulls whole tracklets into the ranking ("+Tracklet"); see `tracklet_pull_in`.

    Needs tracklet ids; with `order="score"` also all scores, so no `top`.

    Example:
        >>> tracklet(), tracklet(order="score")
        (tracklet, tracklet(order=score))
    """
    check_choice(order, "order", ORDERS)

    def ranking(ranking: Ranking, state: State) -> Ranking:
        return pull_in_ranking(ranking, known(state.tracklets))

    return Refine(
        "tracklet",
        scores=lambda s, state: pull_in_scores(s, known(state.tracklets), order=order),
        ranking=ranking if order == "gallery" else None,
        needs_tracklets=True,
    )


@noted
def side_bias(
    query_side: ArrayLike, gallery_side: ArrayLike, *, weight: float | jax.Array
) -> Refine:
    """Subtracts the cosine of a side network's embeddings; see `side_distance_bias`.

    `query_side` is `[Q, S]` and `gallery_side` `[G, S]`, of the embeddings that the
    chain is called with.

    Example:
        >>> import jax.numpy as jnp
        >>> side_bias(jnp.ones((1, 2)), jnp.ones((3, 2)), weight=0.1)
        side_bias(...)
    """
    share = read_weight(weight)
    query, gallery = read_sides(query_side, gallery_side)
    sizes = pair_sizes(query, gallery)
    change = Pairwise(bias_tile, (query, gallery), BY_SIDE, share, sizes)
    return Refine("side_bias", change)


@noted
def same_camera(
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    penalty: float | jax.Array = float("inf"),
) -> Refine:
    """Lowers images of the query's own camera; see `same_camera_penalty`.

    `query_cameras` is `[Q]` and `gallery_cameras` `[G]`, integers or text; -1 is
    unknown and equals no camera.

    Example:
        >>> import jax.numpy as jnp
        >>> same_camera(jnp.array([3]), jnp.array([3, 4]), penalty=0.5)
        same_camera(...)
    """
    cameras, share = read_penalty(query_cameras, gallery_cameras, penalty)
    sizes = pair_sizes(*cameras)
    # Copies: the step must not follow what a caller writes into the arrays later.
    held = tuple(map(jnp.array, cameras))
    change = Pairwise(penalty_tile, held, BY_SIDE, share, sizes)
    return Refine("same_camera", change)


@noted
def add_scores(scores: ArrayLike, *, weight: float | jax.Array = 1.0) -> Refine:
    """Adds `weight` times other scores `[Q, G]` of the same images; see `fuse_scores`.

    A weight of 0 adds nothing; -inf on either side masks an image.

    Example:
        >>> import jax.numpy as jnp
        >>> add_scores(jnp.zeros((1, 3)), weight=0.5)
        add_scores(...)
    """
    share = read_weight(weight)
    other = read_scores(scores, "scores")
    Q, G = other.shape
    change = Pairwise(sum_tile, (jnp.array(other),), BY_PAIR, share, (Q, G))
    return Refine("add_scores", change)
