"""Fusing models, scores and side facts."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import form
from dex_jax.rerank import (
    Embeddings,
    cosine_similarity,
    fuse,
    fuse_scores,
    same_camera_penalty,
    side_distance_bias,
    steps,
    tracklet_pull_in,
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


@pytest.mark.quick
def test_a_weight_of_zero_leaves_scores_out():
    first, other = np.array([[1.0, 2.0, 3.0]]), np.array([[-np.inf, np.inf, 5.0]])
    embeddings = Embeddings(GALLERY[:1], GALLERY[:3])
    for weight in (0, 0.0, -0.0, np.float64(0), jnp.float32(0)):
        found = fuse_scores([first, other], weights=[1, weight])
        np.testing.assert_array_equal(found, first)
        added = steps.add_scores(other, weight=weight)(jnp.asarray(first), embeddings)
        np.testing.assert_array_equal(added, first)
    traced = jax.jit(lambda w: fuse_scores([first, other], weights=w))
    np.testing.assert_array_equal(traced(jnp.array([1.0, 0.0])), first)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("one", "two", "weights", "expected"),
    [
        (-np.inf, 1.0, [1, 1], -np.inf),
        (-np.inf, 1.0, [0.5, 2], -np.inf),
        (-np.inf, np.inf, [1, 1], -np.inf),  # what is masked stays masked
        (np.inf, -np.inf, [1, 1], -np.inf),
        (np.inf, np.inf, [1, -1], -np.inf),
        (np.inf, 1.0, [1, 1], np.inf),
        (-np.inf, 1.0, [-1, 1], np.inf),
        (-np.inf, -np.inf, [0, 0], 0),
    ],
)
def test_infinities_in_sums(one, two, weights, expected):
    one, two = np.array([[one]]), np.array([[two]])
    with jax.debug_nans(True):
        found = fuse_scores([one, two], weights=weights)
        assert found.tolist() == [[expected]]
        if weights[0] == 1:
            embeddings = Embeddings(GALLERY[:1], GALLERY[:1])
            step = steps.add_scores(two, weight=weights[1])
            assert step(jnp.asarray(one), embeddings).tolist() == [[expected]]


@pytest.mark.quick
@pytest.mark.parametrize("penalty", [0.5, np.inf])
@pytest.mark.parametrize("unknown", [-1, "-1", ""])
def test_an_unknown_camera_equals_none(penalty, unknown):
    known = 7 if unknown == -1 else "7"
    scores, cameras = np.array([[0.75, 0.5]]), ([unknown], [unknown, known])
    found = same_camera_penalty(scores, *cameras, penalty=penalty)
    np.testing.assert_array_equal(found, scores)
    step = steps.same_camera(*cameras, penalty=penalty)
    embeddings = Embeddings(GALLERY[:1], GALLERY[:2])
    np.testing.assert_array_equal(step(jnp.asarray(scores), embeddings), scores)


def test_cameras_of_every_kind_mean_the_same():
    scores = np.random.default_rng(0).normal(size=(6, 9))
    own, other = np.arange(6) % 4 - 1, np.arange(9) % 4 - 1
    expected = same_camera_penalty(scores, own, other, penalty=1)
    masked = np.asarray(expected) < scores.astype(np.float32) - 0.5
    np.testing.assert_array_equal(masked, (own[:, None] == other) & (other != -1))
    for change in (
        lambda v: v.astype(str),
        lambda v: v.astype(str).tolist(),
        lambda v: v.astype(bytes),
        lambda v: np.where(v == -1, v, v + 2**40),
        lambda v: jnp.asarray(v, jnp.int8),
    ):
        found = same_camera_penalty(scores, change(own), change(other), penalty=1)
        np.testing.assert_array_equal(found, expected)


def test_infinite_scores_under_a_penalty():
    scores = np.array([[np.inf, -np.inf, 1.0]])
    with jax.debug_nans(True):
        found = same_camera_penalty(scores, [1], [1, 1, 1])
        assert found.tolist() == [[-np.inf] * 3]
        found = same_camera_penalty(scores, [1], [1, 1, 1], penalty=0.5)
    assert found.tolist() == [[np.inf, -np.inf, 0.5]]


CALLS = {
    "fuse_scores": lambda s: fuse_scores([s]),
    "tracklet_pull_in": lambda s: tracklet_pull_in(s, np.arange(s.shape[1])),
    "side_distance_bias": lambda s: side_distance_bias(
        s, np.eye(s.shape[1])[: len(s)] + 1, np.eye(s.shape[1]) + 1, weight=0
    ),
    "same_camera_penalty": lambda s: same_camera_penalty(
        s, np.full(len(s), -1), np.full(s.shape[1], -1)
    ),
    "add_scores": steps.add_scores,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_scores_that_float32_cannot_hold(call):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Doubles that differ by rounding, whole numbers, masks: nothing is lost.
        for scores in (
            rng.uniform(-1, 1, (3, 400)),
            np.where(rng.random((3, 40)) < 0.5, -np.inf, rng.random((3, 40))),
            1 + 1e-16 * rng.integers(0, 3, (2, 40)),
            np.tile(rng.random((2, 20)), 2),
            rng.integers(0, 2**30, (2, 40)),
            np.full((2, 3), 1e6),
        ):
            call(scores)
    for scores in (
        1e6 + 1e-3 * rng.random((3, 40)),
        2**60 + rng.integers(0, 99, (3, 40)),
        np.array([[1.0, 1 + 1e-9]]),
    ):
        with pytest.warns(UserWarning, match=r"scores.*: .* row 0 .* subtract an offs"):
            call(scores)
    for large in (1e39, -1e300):
        with pytest.raises(ValueError, match=r"scores.*: row 1 holds .*1?e\+"):
            call(np.array([[0, 0], [0, large]]))
    for wrong in (np.ones((2, 2), complex), np.ones((2, 2), bool)):
        with pytest.raises(ValueError, match=r"scores.*: expected real numbers, got"):
            call(wrong)


def test_64_bit_mode_changes_nothing():
    rng = np.random.default_rng(0)
    scores, side = rng.normal(size=(2, 3, 9)), rng.normal(size=(9, 4))

    def every():
        return [
            fuse_scores(list(scores), weights=np.array([0.5, 2.0])),
            fuse_scores(list(scores)),
            side_distance_bias(scores[0], side[:3], side, weight=np.float64(0.3)),
            same_camera_penalty(
                scores[0], np.arange(3), np.arange(9) % 4, penalty=np.float64(0.3)
            ),
            tracklet_pull_in(scores[0], np.arange(9) % 4 - 1),
        ]

    plain = every()
    with jax.enable_x64(True):
        wide = every()
    for one, other in zip(plain, wide, strict=True):
        assert one.dtype == other.dtype == jnp.float32
        np.testing.assert_array_equal(one, other)


ROWS = np.ones((2, 3))
WRONG: list = [None, "a", np.nan, -np.inf, 1e39, 1j, True, [1.0], object()]


@pytest.mark.parametrize("value", [*WRONG, np.inf])
def test_weights_that_are_no_numbers(value):
    side = np.eye(3)
    for call in (
        lambda: side_distance_bias(ROWS, side[:2], side, weight=value),
        lambda: steps.side_bias(side[:2], side, weight=value),
        lambda: steps.add_scores(ROWS, weight=value),
    ):
        with pytest.raises(ValueError, match="weight: expected a number, got"):
            call()
    with pytest.raises(ValueError, match=r"weights\[1\]: expected a number, got"):
        fuse_scores([ROWS, ROWS], weights=[1.0, value])


@pytest.mark.parametrize("value", WRONG)
def test_penalties_that_are_no_numbers(value):
    cameras = np.zeros(2, int), np.zeros(3, int)
    with pytest.raises(ValueError, match="penalty: expected a number, got"):
        same_camera_penalty(ROWS, *cameras, penalty=value)
    with pytest.raises(ValueError, match="penalty: expected a number, got"):
        steps.same_camera(*cameras, penalty=value)


NO_ARRAYS: Any = None
SCALAR: Any = 3
EMPTY: Any = np.zeros((0, 2, 2))
MATRIX: Any = ROWS


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
            lambda: fuse_scores([ROWS], weights="a"),
            r"weights: expected 1 n.*shape \(\)",
        ),
        (lambda: fuse_scores([ROWS], weights=SCALAR), "weights: expected 1 numbers"),
        (
            lambda: fuse_scores([ROWS], weights=np.array(["a"])),
            r"weights\[0\]: expected a number",
        ),
        (lambda: fuse_scores(NO_ARRAYS), "scores: .* one array, got NoneType"),
        (lambda: fuse(NO_ARRAYS), "embeddings: .* one array, got NoneType"),
        (lambda: fuse(EMPTY), "embeddings: .* one array, got ndarray"),
        (lambda: fuse_scores(MATRIX), r"scores\[0\]: expected scores \[Q, G\]"),
        (
            lambda: same_camera_penalty(ROWS, SCALAR, [1, 2, 3]),
            r"query_cameras: expected labels of shape \[N\], got \(\)",
        ),
        (
            lambda: same_camera_penalty(ROWS, [1, 2], SCALAR),
            r"gallery_cameras: expected labels of shape \[N\], got \(\)",
        ),
        (
            lambda: steps.same_camera(["a", "b"], [1, 2, 3]),
            "query_cameras: is text and gallery_cameras is integers",
        ),
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
