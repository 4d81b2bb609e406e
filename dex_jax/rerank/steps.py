"""The steps of a chain: level-1 functions with their options bound.

Options are checked when a step is made, before any data are touched.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from dex_jax._checks import check_choice, check_masked_count, check_number, is_concrete
from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._search import limit_count, search
from dex_jax.rerank import _database_augmentation as augmentation
from dex_jax.rerank import _diffusion as graph_diffusion
from dex_jax.rerank import _k_reciprocal as reciprocal
from dex_jax.rerank._embeddings import read_scores
from dex_jax.rerank._fusion import (
    bias_tile,
    cosine_scan,
    pair_sizes,
    penalty_tile,
    read_penalty,
    read_sides,
    sum_tile,
)
from dex_jax.rerank._k_reciprocal_tracklets import with_tracklet_scan
from dex_jax.rerank._kinds import (
    Expand,
    Pairwise,
    Rank,
    Refine,
    State,
    known,
)
from dex_jax.rerank._query_expansion import (
    WITHIN,
    expand_over_images,
    expand_over_tracklets,
)
from dex_jax.rerank._scan import Scan
from dex_jax.rerank._tracklets import (
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

_P = ParamSpec("_P")
_S = TypeVar("_S", Expand, Rank, Refine)


def _noted(make: Callable[_P, _S]) -> Callable[_P, _S]:
    """Notes on a step what it was asked for, where that differs from the defaults."""
    signature = inspect.signature(make)
    defaults = {name: p.default for name, p in signature.parameters.items()}

    @functools.wraps(make)
    def made(*args: _P.args, **options: _P.kwargs) -> _S:
        step = make(*args, **options)
        given = signature.bind(*args, **options).arguments
        plain = {name: _plain(value) for name, value in given.items()}
        asked = [(n, v) for n, v in plain.items() if not _same(v, defaults[n])]
        return replace(step, options=tuple(asked))

    return made


def _plain(value: object) -> object:
    """The number in an array of one, such as an entry of a grid; all else as it is."""
    if isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0:
        return value.item() if is_concrete(value) else value
    return value


def _same(value: object, default: object) -> bool:
    """Tells whether an option is left as it is; an array never is."""
    if isinstance(value, int | float | str):
        return value == default
    return value is default


@_noted
def aqe(*, k: int | jax.Array = 20, k_max: int | None = None) -> Expand:
    """Average query expansion; see `average_query_expansion`."""
    return Expand("aqe", alpha_qe(k=k, alpha=0.0, k_max=k_max).apply)


@_noted
def alpha_qe(
    *,
    k: int | jax.Array = 20,
    alpha: float | jax.Array = 2.0,
    k_max: int | None = None,
) -> Expand:
    """Alpha-weighted query expansion; see `alpha_query_expansion`."""
    asked = check_masked_count(k, k_max, "k")
    check_number(alpha, "alpha", least=0)

    def apply(state: State, lists: NeighborLists | None) -> State:
        query, gallery, _ = state.pair
        count = limit_count(asked, gallery.shape[0], "k")
        return state.with_query(expand_over_images(query, gallery, count, alpha=alpha))

    return Expand("alpha_qe", apply)


@_noted
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

    def apply(state: State, lists: NeighborLists | None) -> State:
        query, gallery, _ = state.pair
        count = limit_count(asked, gallery.shape[0], "k")
        tracklets = known(state.tracklets)
        return state.with_query(
            expand_over_tracklets(
                query, gallery, tracklets, count, alpha=alpha, within=within
            )
        )

    return Expand("dex", apply, needs_tracklets=True)


@_noted
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

    def apply(state: State, lists: NeighborLists | None) -> State:
        gallery = state.pair.gallery
        read = augmentation.entries(asked, gallery.shape[0], include_self=include_self)
        gallery = augmentation.augment(
            gallery,
            known(lists).first(read.width),
            read.value,
            alpha=alpha,
            include_self=include_self,
        )
        return state.with_gallery(gallery)

    def width(size: int) -> int:
        return min(asked.width + int(include_self == "plus"), size)

    return Expand("dba", apply, width, changes_gallery=True)


@_noted
def tracklet_means(*, weights: ArrayLike | None = None) -> Expand:
    """Gallery images replaced by the mean of their tracklet; see `tracklet_means`."""
    if weights is not None and np.ndim(weights) != 1:
        raise ValueError(f"weights: expected an array [G], got {weights!r}")

    def apply(state: State, lists: NeighborLists | None) -> State:
        tracklets = known(state.tracklets)
        shares = check_weights(weights, tracklets)
        return state.with_gallery(averaged(state.pair.gallery, tracklets, shares))

    return Expand("tracklet_means", apply, changes_gallery=True, needs_tracklets=True)


@_noted
def cosine() -> Rank:
    """Plain cosine similarity; see `cosine_similarity`."""

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return use(cosine_scan(state.pair))

    return Rank("cosine", scan)


@_noted
def k_reciprocal(
    *,
    k1: int | jax.Array = 60,
    k2: int | jax.Array = 30,
    lambda_: float | jax.Array = 0.5,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal re-ranking; see `dex_jax.rerank.k_reciprocal`."""
    check_number(lambda_, "lambda_")
    options = reciprocal.read_options(k1, k2, lambda_, k1_max, k2_max)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return reciprocal.with_sizes(state.pair, lists, options, use)

    def width(size: int) -> int:
        return min(max(options.k1.width + 1, options.k2.width), size)

    return Rank("k_reciprocal", scan, width)


@_noted
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
    solve = graph_diffusion.solve(solver, initial, iterations)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        query, gallery, _ = state.pair
        own, near = graph_diffusion.limit_counts(counts, gallery.shape[0])
        start = search(query, gallery, k=near.width)
        graph = known(lists).first(own.width)
        return use(
            graph_diffusion.diffusion_scan(start, graph, options, solve, state.pair)
        )

    return Rank("diffusion", scan, lambda size: min(counts[0].width, size))


@_noted
def tracklet_k_reciprocal(
    *,
    k1: int | jax.Array = 7,
    k2: int | jax.Array = 2,
    lambda_: float | jax.Array = 0.6,
    k1_max: int | None = None,
    k2_max: int | None = None,
) -> Rank:
    """k-reciprocal of queries against tracklets; see `tracklet_k_reciprocal`."""
    check_number(lambda_, "lambda_")
    options = reciprocal.read_options(k1, k2, lambda_, k1_max, k2_max)

    def scan(
        state: State, lists: NeighborLists | None, use: Callable[[Scan], Any]
    ) -> Any:
        return with_tracklet_scan(state.pair, known(state.tracklets), options, use)

    return Rank("tracklet_k_reciprocal", scan, needs_tracklets=True)


@_noted
def tracklet() -> Refine:
    """Pulls whole tracklets into the ranking; see `tracklet_pull_in`."""
    return Refine(
        "tracklet",
        scores=lambda scores, state: pull_in_scores(scores, known(state.tracklets)),
        ranking=lambda ranking, state: pull_in_ranking(ranking, known(state.tracklets)),
        needs_tracklets=True,
    )


@_noted
def side_bias(
    query_side: ArrayLike, gallery_side: ArrayLike, *, weight: float | jax.Array
) -> Refine:
    """Takes off what a side network finds alike; see `side_distance_bias`."""
    check_number(weight, "weight")
    query, gallery = read_sides(query_side, gallery_side)
    sizes = pair_sizes(query, gallery)
    return Refine("side_bias", Pairwise(bias_tile, query, (gallery, weight), sizes))


@_noted
def same_camera(
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    penalty: float | jax.Array = float("inf"),
) -> Refine:
    """Lowers images of the query's own camera; see `same_camera_penalty`."""
    query, gallery = read_penalty(query_cameras, gallery_cameras, penalty)
    sizes = pair_sizes(query, gallery)
    change = Pairwise(penalty_tile, query, (gallery, penalty), sizes)
    return Refine("same_camera", change)


@_noted
def add_scores(scores: ArrayLike, *, weight: float | jax.Array = 1.0) -> Refine:
    """Adds scores of another ranking of the same images; see `fuse_scores`."""
    check_number(weight, "weight")
    other = read_scores(scores, "scores")
    sizes = pair_sizes(other, other.T)
    return Refine("add_scores", Pairwise(sum_tile, other, weight, sizes))
