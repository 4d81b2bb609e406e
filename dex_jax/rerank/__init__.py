"""Re-ranking of a gallery for each query, from embeddings of any network.

Each step of the paper is a plain function of arrays, such as `k_reciprocal`. `chain`
and `parse` compose the same steps to a pipeline that searches the gallery only once
for several of them.
"""

from dex_jax.rerank import steps
from dex_jax.rerank._cache import NeighborCache
from dex_jax.rerank._chain import Pipeline, chain
from dex_jax.rerank._database_augmentation import database_augmentation
from dex_jax.rerank._diffusion import diffusion
from dex_jax.rerank._embeddings import Embeddings, Ranking, top_k
from dex_jax.rerank._fusion import (
    cosine_similarity,
    fuse,
    fuse_scores,
    same_camera_penalty,
    side_distance_bias,
)
from dex_jax.rerank._k_reciprocal import k_reciprocal
from dex_jax.rerank._k_reciprocal_tracklets import tracklet_k_reciprocal
from dex_jax.rerank._parse import parse
from dex_jax.rerank._query_expansion import (
    alpha_query_expansion,
    average_query_expansion,
    tracklet_query_expansion,
)
from dex_jax.rerank._tracklets import tracklet_means, tracklet_pull_in

__all__ = [
    "Embeddings",
    "NeighborCache",
    "Pipeline",
    "Ranking",
    "alpha_query_expansion",
    "average_query_expansion",
    "chain",
    "cosine_similarity",
    "database_augmentation",
    "diffusion",
    "fuse",
    "fuse_scores",
    "k_reciprocal",
    "parse",
    "same_camera_penalty",
    "side_distance_bias",
    "steps",
    "top_k",
    "tracklet_k_reciprocal",
    "tracklet_means",
    "tracklet_pull_in",
    "tracklet_query_expansion",
]
