"""The steps of a chain: level-1 functions with their options bound.

Options are checked when a step is made, before any data are touched.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from dex_jax._checks import check_choice, check_masked_count, check_number
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._search import limit_count, search
from dex_jax.rerank import _database_augmentation as augmentation
from dex_jax.rerank import _diffusion as graph_diffusion
from dex_jax.rerank._embeddings import Ranking, read_scores
from dex_jax.rerank._fusion import (
    bias_tile,
    cosine_ranking,
    cosines,
    pair_sizes,
    penalty_tile,
    read_penalty,
    read_sides,
    sum_tile,
)
from dex_jax.rerank._k_reciprocal import (
    read_options,
    reciprocal_ranking,
    reciprocal_scores,
)
from dex_jax.rerank._k_reciprocal_tracklets import (
    tracklet_reciprocal_ranking,
    tracklet_reciprocal_scores,
)
from dex_jax.rerank._kinds import (
    Expand,
    Graph,
    Rank,
    Refine,
    State,
    Tile,
    first,
    known,
)
from dex_jax.rerank._query_expansion import (
    WITHIN,
    expand_over_images,
    expand_over_tracklets,
)
from dex_jax.rerank._tracklets import (
    Tracklets,
    averaged,
    check_weights,
    pull_in_ranking,
    pull_in_scores,
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


def aqe(*, k: int | jax.Array = 20, k_max: int | None = None) -> Expand:
    """Average query expansion; see `average_query_expansion`."""
    return Expand("aqe", alpha_qe(k=k, alpha=0.0, k_max=k_max).apply)


def alpha_qe(
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    k_max: int | None = None,
) -> Expand:
    """Alpha-weighted query expansion; see `alpha_query_expansion`."""
    asked = check_masked_count(k, k_max, "k")
    check_number(alpha, "alpha", least=0)

    def apply(state: State, graph: Graph | None) -> State:
        count = limit_count(asked, state.gallery.shape[0], "k")
        query = expand_over_images(state.query, state.gallery, count, alpha=alpha)
        return state._replace(query=query)

    return Expand("alpha_qe", apply)


def dex(
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    within: str = "index",
    k_max: int | None = None,
) -> Expand:
    """Query expansion over tracklets; see `tracklet_query_expansion`."""
    asked = check_masked_count(k, k_max, "k")
    check_number(alpha, "alpha", least=0)
    check_choice(within, "within", WITHIN)

    def apply(state: State, graph: Graph | None) -> State:
        count = limit_count(asked, state.gallery.shape[0], "k")
        query = expand_over_tracklets(
            *_with_tracklets(state), count, alpha=alpha, within=within
        )
        return state._replace(query=query)

    return Expand("dex", apply, needs_tracklets=True)


def dba(
    *,
    k: int | jax.Array = 10,
    alpha: float | jax.Array = 0.0,
    include_self: str = "plus",
    k_max: int | None = None,
) -> Expand:
    """Database augmentation; see `database_augmentation`."""
    asked = augmentation.check_options(
        k=k, alpha=alpha, include_self=include_self, k_max=k_max
    )

    def apply(state: State, graph: Graph | None) -> State:
        size = state.gallery.shape[0]
        read = augmentation.entries(asked, size, include_self=include_self)
        gallery = augmentation.augment(
            state.gallery,
            first(known(graph)[0], read.width),
            read.value,
            alpha=alpha,
            include_self=include_self,
        )
        return state._replace(gallery=gallery)

    def width(size: int) -> int:
        return min(asked.width + int(include_self == "plus"), size)

    return Expand("dba", apply, width, changes_gallery=True)


def tracklet_means(*, weights: ArrayLike | None = None) -> Expand:
    """Gallery images replaced by the mean of their tracklet; see `tracklet_means`."""

    def apply(state: State, graph: Graph | None) -> State:
        tracklets = known(state.tracklets)
        shares = check_weights(weights, tracklets)
        return state._replace(gallery=averaged(state.gallery, tracklets, shares))

    return Expand("tracklet_means", apply, changes_gallery=True, needs_tracklets=True)


def cosine() -> Rank:
    """Plain cosine similarity; see `cosine_similarity`."""

    def ranking(
        state: State, graph: Graph | None, top: int, tiles: tuple[Tile, ...]
    ) -> Ranking:
        if tiles:
            return cosine_ranking(state.query, state.gallery, tiles, top=top)
        return Ranking(*search(state.query, state.gallery, k=top))

    return Rank("cosine", lambda s, _: cosines(s.query, s.gallery), ranking)


def k_reciprocal(
    *,
    k1: int | jax.Array = 60,
    k2: int | jax.Array = 30,
    lambda_: float | jax.Array = 0.5,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal re-ranking; see `dex_jax.rerank.k_reciprocal`."""
    options = read_options(k1, k2, lambda_, k1_max, k2_max)
    return Rank(
        "k_reciprocal",
        lambda s, graph: reciprocal_scores(s.query, s.gallery, options, graph),
        lambda s, graph, top, tiles: reciprocal_ranking(
            s.query, s.gallery, options, graph, top=top, tiles=tiles
        ),
        lambda size: min(max(options.k1.width + 1, options.k2.width), size),
    )


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
) -> Rank:
    """Diffusion over the gallery's graph; see `dex_jax.rerank.diffusion`."""
    counts = graph_diffusion.check_counts(k, k_query, k_max, k_query_max)
    graph_diffusion.check_options(alpha, gamma, iterations, solver, initial)
    # A count beyond the gallery masks nothing: these may stay as they were asked.
    options = graph_diffusion.Options(
        alpha, gamma, iterations, counts[0].value, counts[1].value
    )
    solve = {"solver": solver, "initial": initial}

    def lists(state: State, graph: Graph | None) -> tuple[Neighbors, Neighbors]:
        size = state.gallery.shape[0]
        own, near = graph_diffusion.limit_counts(counts, size)
        found = search(state.query, state.gallery, k=near.width)
        return found, first(known(graph)[0], own.width)

    return Rank(
        "diffusion",
        lambda s, graph: graph_diffusion.diffuse_scores(
            *lists(s, graph), options, shards=row_shards(s.gallery), **solve
        ),
        lambda s, graph, top, tiles: graph_diffusion.diffuse_ranking(
            *lists(s, graph),
            options,
            top=top,
            tiles=tiles,
            shards=row_shards(s.gallery),
            **solve,
        ),
        lambda size: min(counts[0].width, size),
    )


def tracklet_k_reciprocal(
    *,
    k1: int | jax.Array = 7,
    k2: int | jax.Array = 2,
    lambda_: float | jax.Array = 0.6,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal of queries against tracklets; see `tracklet_k_reciprocal`."""
    options = read_options(k1, k2, lambda_, k1_max, k2_max)

    def scores(state: State, graph: Graph | None) -> jax.Array:
        return tracklet_reciprocal_scores(*_with_tracklets(state), options)

    def ranking(
        state: State, graph: Graph | None, top: int, tiles: tuple[Tile, ...]
    ) -> Ranking:
        if tiles:
            raise ValueError(
                "top: tracklet_k_reciprocal ranks tracklets, whose images a refine "
                "step then tells apart; leave top out and pass the scores to top_k"
            )
        return tracklet_reciprocal_ranking(*_with_tracklets(state), options, top=top)

    return Rank("tracklet_k_reciprocal", scores, ranking, needs_tracklets=True)


def tracklet() -> Refine:
    """Pulls whole tracklets into the ranking; see `tracklet_pull_in`."""
    return Refine(
        "tracklet",
        lambda scores, state: pull_in_scores(scores, known(state.tracklets)),
        lambda ranking, state: pull_in_ranking(ranking, known(state.tracklets)),
        needs_tracklets=True,
    )


def side_bias(
    query_side: ArrayLike, gallery_side: ArrayLike, *, weight: float | jax.Array
) -> Refine:
    """Takes off what a side network finds alike; see `side_distance_bias`."""
    check_number(weight, "weight")
    sides = read_sides(query_side, gallery_side)
    tile = Partial(bias_tile, *sides, weight)
    return _by_tiles("side_bias", pair_sizes(*sides), tile)


def same_camera(
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    penalty: float | jax.Array = float("inf"),
) -> Refine:
    """Lowers images of the query's own camera; see `same_camera_penalty`."""
    cameras = read_penalty(query_cameras, gallery_cameras, penalty)
    tile = Partial(penalty_tile, *cameras, penalty)
    return _by_tiles("same_camera", pair_sizes(*cameras), tile)


def add_scores(scores: ArrayLike, *, weight: float | jax.Array = 1.0) -> Refine:
    """Adds scores of another ranking of the same images; see `fuse_scores`."""
    check_number(weight, "weight")
    other = read_scores(scores, "scores")
    return _by_tiles("add_scores", other.shape, Partial(sum_tile, other, weight))


def _by_tiles(name: str, sizes: tuple[int, ...], tile: Tile) -> Refine:
    """A step that works on any tile of scores of `sizes` `(Q, G)`."""

    def scores(scores: jax.Array, state: State) -> jax.Array:
        zero = jnp.int32(0)
        return tile(scores, zero, zero)

    return Refine(name, scores, tile=tile, sizes=sizes)


def _with_tracklets(state: State) -> tuple[jax.Array, jax.Array, Tracklets]:
    """The state of a chain whose step has said that it needs tracklets."""
    return state.query, state.gallery, known(state.tracklets)
