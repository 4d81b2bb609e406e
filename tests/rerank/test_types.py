"""What users pass is right in the eyes of a type checker, and when it is called.

The type checker reads this file: a line that is right and refused is a fault.
"""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np

from dex_jax import losses, metrics, neighbors, rerank
from dex_jax.rerank import Embeddings, chain, parse, steps


class Tensor:
    """An array of another framework: it can be read, and knows nothing of numpy."""

    def __init__(self, values: Any):
        self._values = np.asarray(values, np.float32)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> "Tensor":
        return Tensor(self._values[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype)


ROWS = [[1.0, 2.0], [3.0, 4.0], [1.0, 0.5], [0.2, 1.0]]
TENSOR, ARRAY, TRACKS = Tensor(ROWS), np.array(ROWS), (1, 1, 2, 2)


def test_every_kind_of_array_is_taken():
    calls = [
        rerank.k_reciprocal(TENSOR, TENSOR, k1=2, k2=1),
        rerank.k_reciprocal(ARRAY, jnp.asarray(ROWS), k1=2, k2=1),
        rerank.k_reciprocal(ROWS, ROWS, k1=2, k2=1, lambda_=1),
        rerank.tracklet_k_reciprocal(TENSOR, TENSOR, list(TRACKS), k1=1),
        rerank.diffusion(TENSOR, ARRAY, k=2, k_query=2),
        rerank.diffusion(TENSOR, ARRAY, k=2, k_query=2, alpha=jnp.asarray(0.9)),
        rerank.alpha_query_expansion(TENSOR, jnp.asarray(ROWS), k=2),
        rerank.tracklet_query_expansion(TENSOR, ROWS, TRACKS, k=2),
        rerank.database_augmentation(TENSOR, k=2),
        rerank.tracklet_means(TENSOR, TRACKS, weights=[1.0, 2.0, 3.0, 4.0]),
        neighbors.nearest_neighbors(TENSOR, ROWS, k=2).ids,
        rerank.fuse([TENSOR, ARRAY]),
        rerank.fuse_scores([ROWS, ARRAY], weights=[1, 2]),
        rerank.fuse_scores([ROWS, TENSOR], weights=np.array([1.0, 2.0])),
        rerank.top_k(TENSOR, k=2).scores,
        rerank.tracklet_pull_in(ROWS, ["a", "b"]),
        rerank.same_camera_penalty(ROWS, TRACKS, [1, 2], penalty=0.5),
        rerank.side_distance_bias([[1.0] * 4] * 4, TENSOR, ROWS, weight=0.5),
        losses.circle(TENSOR, [1, 1, 2, 2]),
        losses.batch_hard_triplet(ARRAY, TRACKS),
        losses.label_smoothed_cross_entropy(TENSOR, [0, 1, 0, 1]),
    ]
    assert all(np.isfinite(np.asarray(x)).all() for x in calls)


def test_every_kind_of_label_is_taken():
    for identities in (["a", "b", "a", "b"], [1, 2, 1, 2], np.array([1, 2, 1, 2])):
        found = metrics.evaluate(
            [[0.4, 0.3, 0.2, 0.1]] * 4,
            query_identities=identities,
            gallery_identities=identities,
            query_cameras=("x", "x", "y", "y"),
            gallery_cameras=["x", "y", "x", "y"],
        )
        assert bool(found.valid.any())


def test_chains_take_them_too():
    embeddings = Embeddings(TENSOR, ROWS, TRACKS)
    pipeline = chain(
        steps.dex(k=2),
        steps.side_bias(TENSOR, ROWS, weight=0.1),
        steps.same_camera([1, 2, 3, 4], [1, 2, 3, 4]),
        steps.add_scores([[1.0] * 4] * 4),
        steps.tracklet(),
    )
    assert pipeline(embeddings, top=2).ids.shape == (4, 2)
    assert parse("dba(k=1)")(embeddings).shape == (4, 4)


def test_help_names_the_protocol():
    for function in (
        rerank.k_reciprocal,
        neighbors.nearest_neighbors,
        metrics.evaluate,
    ):
        assert "ArrayLike" in str(inspect.signature(function))
