"""A call of every public function of arrays; see `test_every_form.py`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dex_jax import losses, metrics, neighbors, rerank
from dex_jax.rerank import Embeddings, chain, parse, steps

# Odd sizes, and a gallery that four devices share evenly.
Q, G, D, DEVICES = 7, 52, 12, 4


class Arrays(NamedTuple):
    """What the functions are called with; one field a kind of argument."""

    query: Any
    gallery: Any
    tracklets: Any
    query_cameras: Any
    gallery_cameras: Any
    query_identities: Any
    gallery_identities: Any
    scores: Any
    option: Any  # a scalar


# How each field is split over a mesh: like the gallery's images, or not at all.
SPLIT = Arrays(
    query=PartitionSpec(),
    gallery=PartitionSpec("gallery"),
    tracklets=PartitionSpec("gallery"),
    query_cameras=PartitionSpec(),
    gallery_cameras=PartitionSpec("gallery"),
    query_identities=PartitionSpec(),
    gallery_identities=PartitionSpec("gallery"),
    scores=PartitionSpec(None, "gallery"),
    option=PartitionSpec(),
)


class Case(NamedTuple):
    """A call; `vmapped` where the option may be traced, and so mapped over."""

    call: Callable[[Arrays], Any]
    vmapped: bool = False
    # Whose number of tracklets sets a shape: they are known inside `jit`.
    known: bool = False


def _pipeline(text: str, top: int | None = None) -> Callable[[Arrays], Any]:
    def call(a: Arrays) -> Any:
        return parse(text)(Embeddings(a.query, a.gallery, a.tracklets), top=top)

    return call


def _refined(top: int | None) -> Callable[[Arrays], Any]:
    def call(a: Arrays) -> Any:
        pipeline = chain(
            steps.side_bias(a.query, a.gallery, weight=a.option),
            steps.same_camera(a.query_cameras, a.gallery_cameras, penalty=a.option),
            steps.add_scores(a.scores, weight=a.option),
        )
        return pipeline(Embeddings(a.query, a.gallery), top=top)

    return call


def _count(a: Arrays, most: int) -> Any:
    """The option, a number from 0 to 1, as a count from 1 to `most`."""
    return jnp.asarray(1 + a.option * (most - 1), jnp.float32).astype(jnp.int32)


def _evaluated(a: Arrays, scores: Any) -> metrics.Evaluation:
    return metrics.evaluate(
        scores,
        query_identities=a.query_identities,
        gallery_identities=a.gallery_identities,
        query_cameras=a.query_cameras,
        gallery_cameras=a.gallery_cameras,
    )


CASES = {
    "nearest_neighbors": Case(
        lambda a: neighbors.nearest_neighbors(a.query, a.gallery, k=5)
    ),
    "nearest_neighbors in itself": Case(
        lambda a: neighbors.nearest_neighbors(
            a.gallery, a.gallery, k=5, exclude_self=True
        )
    ),
    "cosine_similarity": Case(lambda a: rerank.cosine_similarity(a.query, a.gallery)),
    "average_query_expansion": Case(
        lambda a: rerank.average_query_expansion(
            a.query, a.gallery, k=_count(a, 6), k_max=6
        ),
        vmapped=True,
    ),
    "alpha_query_expansion": Case(
        lambda a: rerank.alpha_query_expansion(a.query, a.gallery, k=5, alpha=a.option),
        vmapped=True,
    ),
    "tracklet_query_expansion": Case(
        lambda a: rerank.tracklet_query_expansion(
            a.query, a.gallery, a.tracklets, k=5, alpha=a.option
        ),
        vmapped=True,
    ),
    "tracklet_query_expansion by similarity": Case(
        lambda a: rerank.tracklet_query_expansion(
            a.query, a.gallery, a.tracklets, k=4, within="similarity"
        )
    ),
    "database_augmentation": Case(
        lambda a: rerank.database_augmentation(a.gallery, k=4, alpha=a.option),
        vmapped=True,
    ),
    "tracklet_means": Case(lambda a: rerank.tracklet_means(a.gallery, a.tracklets)),
    "k_reciprocal": Case(
        lambda a: rerank.k_reciprocal(a.query, a.gallery, k1=6, k2=3, lambda_=a.option),
        vmapped=True,
    ),
    "tracklet_k_reciprocal": Case(
        lambda a: rerank.tracklet_k_reciprocal(
            a.query, a.gallery, a.tracklets, k1=4, lambda_=a.option
        ),
        vmapped=True,
        known=True,
    ),
    "diffusion": Case(
        lambda a: rerank.diffusion(a.query, a.gallery, k=6, k_query=3, alpha=a.option),
        vmapped=True,
    ),
    "diffusion by cg": Case(
        lambda a: rerank.diffusion(a.query, a.gallery, k=6, k_query=3, solver="cg")
    ),
    "tracklet_pull_in": Case(lambda a: rerank.tracklet_pull_in(a.scores, a.tracklets)),
    "tracklet_pull_in, by score": Case(
        lambda a: rerank.tracklet_pull_in(a.scores, a.tracklets, order="score")
    ),
    "top_k": Case(lambda a: rerank.top_k(a.scores, k=5)),
    "fuse": Case(lambda a: rerank.fuse([a.gallery, a.gallery])),
    "fuse by concat": Case(
        lambda a: rerank.fuse([a.gallery, a.gallery], method="concat")
    ),
    "fuse_scores": Case(
        lambda a: rerank.fuse_scores(
            [a.scores, a.scores], weights=jnp.stack([jnp.asarray(a.option)] * 2)
        ),
        vmapped=True,
    ),
    "side_distance_bias": Case(
        lambda a: rerank.side_distance_bias(
            a.scores, a.query, a.gallery, weight=a.option
        ),
        vmapped=True,
    ),
    "same_camera_penalty": Case(
        lambda a: rerank.same_camera_penalty(
            a.scores, a.query_cameras, a.gallery_cameras, penalty=a.option
        ),
        vmapped=True,
    ),
    "chain": Case(_refined(None)),
    "chain, the best": Case(_refined(9)),
    "parse, the best": Case(
        _pipeline("dex(k=4),dba(k=3),k_reciprocal(k1=5,k2=2),tracklet", 9)
    ),
    "parse diffusion, the best": Case(_pipeline("aqe(k=3),diffusion(k=5)", 9)),
    "evaluate": Case(lambda a: _evaluated(a, a.scores)),
    "evaluate a ranking": Case(lambda a: _evaluated(a, rerank.top_k(a.scores, k=20))),
    "circle": Case(
        lambda a: losses.circle(a.query, a.query_identities, margin=a.option),
        vmapped=True,
    ),
    "batch_hard_triplet": Case(
        lambda a: losses.batch_hard_triplet(
            a.query, a.query_identities, margin=a.option
        ),
        vmapped=True,
    ),
    "hardest_distances": Case(
        lambda a: losses.hardest_distances(a.query, a.query_identities)
    ),
    "label_smoothed_cross_entropy": Case(
        lambda a: losses.label_smoothed_cross_entropy(
            a.query, a.query_identities, epsilon=a.option
        ),
        vmapped=True,
    ),
    "additive_angular_margin": Case(
        lambda a: losses.additive_angular_margin(
            a.scores, a.query_identities, margin=a.option
        ),
        vmapped=True,
    ),
}

# Public names that are no functions of arrays, or are called by other cases.
TYPES = {
    "Neighbors",
    "SplitRows",
    "split_rows",
    "NeighborLists",
    "form",
    "Embeddings",
    "NeighborCache",
    "Pipeline",
    "Ranking",
    "steps",
}
