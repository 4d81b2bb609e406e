"""Fusing models, scores and side facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import form
from dex_jax.rerank import (
    cosine_similarity,
    fuse,
    fuse_scores,
    same_camera_penalty,
    side_distance_bias,
)
from tests.reference.expansion import unit
from tests.rerank.cases import clusters

QUERY, GALLERY, _ = clusters()


@pytest.mark.quick
def test_cosine_of_rows_of_any_length():
    expected = unit(QUERY) @ unit(GALLERY).T
    found = cosine_similarity(3 * QUERY, GALLERY * 1e-20)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.quick
def test_sum_by_hand():
    # l2(3, 0) + l2(0, 7) points along (1, 1).
    found = fuse([np.array([[3.0, 0.0]]), np.array([[0.0, 7.0]])])
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]], atol=1e-6)


@pytest.mark.quick
def test_cosine_of_concatenated_rows_is_the_mean_cosine():
    other = GALLERY[:, ::2] + 1
    joined = fuse([GALLERY, other], method="concat")
    assert joined.shape == (len(GALLERY), 12)
    cosines = [unit(x) @ unit(x).T for x in (GALLERY, other)]
    np.testing.assert_allclose(
        joined @ joined.T, (cosines[0] + cosines[1]) / 2, atol=1e-6
    )


@pytest.mark.quick
def test_score_sums():
    scores = [np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])]
    np.testing.assert_array_equal(fuse_scores(scores), [[4, 7]])
    np.testing.assert_array_equal(fuse_scores(scores, weights=[2, 1]), [[5, 9]])


@pytest.mark.quick
def test_side_bias_and_camera_penalty_by_hand():
    side = np.array([[4.0, 0.0], [0.0, 2.0]])
    scores = np.array([[0.5, 0.25]])
    found = side_distance_bias(scores, side[:1], side, weight=0.125)
    np.testing.assert_allclose(found, [[0.375, 0.25]])
    cameras = np.array([2**40]), np.array([2**40, 7])
    found = same_camera_penalty(scores, *cameras, penalty=0.125)
    np.testing.assert_allclose(found, [[0.375, 0.25]])
    found = same_camera_penalty(scores, *cameras)
    np.testing.assert_allclose(found, [[-np.inf, 0.25]])


def test_a_sweep_over_weights():
    side, scores = GALLERY[:3], np.ones((3, 3))
    sweep = jax.vmap(lambda w: side_distance_bias(scores, side, side, weight=w))
    found = sweep(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(found[0], scores)
    np.testing.assert_allclose(jnp.diagonal(found[1]), 0.5, atol=1e-6)


ROWS = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fuse([]), "embeddings: expected at least one"),
        (
            lambda: fuse([ROWS], method="mean"),
            "method: expected one of 'sum', 'concat'",
        ),
        (
            lambda: fuse([ROWS, ROWS[:, :2]]),
            r"embeddings\[1\]: shape \(2, 2\) does not",
        ),
        (lambda: fuse([ROWS, 0 * ROWS]), r"embeddings\[1\]: 2 row"),
        (lambda: fuse([ROWS, -ROWS]), "embeddings: their sum: 2 row.* all zero"),
        (lambda: fuse_scores([]), "scores: expected at least one"),
        (lambda: fuse_scores([ROWS, ROWS.T]), r"scores\[1\]: shape \(3, 2\) differs"),
        (lambda: fuse_scores([ROWS], weights=[1, 2]), "weights: expected 1 numbers"),
        (
            lambda: side_distance_bias(ROWS, ROWS, ROWS, weight=0.1),
            r"scores: expected shape \(2, 2\) for these side embeddings",
        ),
        (
            lambda: same_camera_penalty(ROWS, np.zeros(2, int), np.zeros(2, int)),
            r"scores: expected shape \(2, 2\) for these cameras",
        ),
        (
            lambda: same_camera_penalty(
                ROWS, np.zeros(2, int), np.zeros(3, int), penalty=np.nan
            ),
            "penalty: expected a number",
        ),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["cpu", "wide"])
def test_equal_images_have_equal_cosines_and_gradients_of_their_own(name):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(5, 7)), rng.normal(size=(77, 7))
    gallery[40:] = gallery[:37]
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    weights = rng.normal(size=(5, 77)).astype(np.float32)

    def loss(gallery):
        return (weights * cosine_similarity(query, gallery)).sum()

    with form(name):
        scores = np.asarray(cosine_similarity(query, gallery))
        slope = np.asarray(jax.grad(loss)(jnp.asarray(gallery)))
    np.testing.assert_array_equal(scores[:, 40:], scores[:, :37])
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    pull = weights.T @ (query / np.linalg.norm(query, axis=1, keepdims=True))
    along = (pull * unit).sum(axis=1, keepdims=True) * unit
    expected = (pull - along) / np.linalg.norm(gallery, axis=1, keepdims=True)
    np.testing.assert_allclose(slope, expected, atol=1e-5)
