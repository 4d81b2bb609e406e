"""Grouping tracklets, their means, and pulling them into rankings."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.rerank import (
    Embeddings,
    Ranking,
    chain,
    k_reciprocal,
    parse,
    steps,
    top_k,
    tracklet_k_reciprocal,
    tracklet_means,
    tracklet_pull_in,
    tracklet_query_expansion,
)
from dex_jax.rerank._tracklets import group_tracklets, pull_in_ranking, separate
from tests.reference.expansion import ranked, unit
from tests.reference.tracklets import pulled_in
from tests.rerank.cases import G, Q, clusters

QUERY, GALLERY, TRACKS = clusters()


@pytest.mark.quick
def test_groups_in_order_of_first_appearance():
    tracks = group_tracklets(jnp.array([7, -2, 7, 3, -2, 7]))
    assert tracks.labels.tolist() == [0, 1, 0, 2, 1, 0]
    assert tracks.order.tolist() == [0, 2, 5, 1, 4, 3]
    assert tracks.counts[:3].tolist() == [3, 2, 1]
    assert tracks.starts[:3].tolist() == [0, 3, 5]
    assert not tracks.counts[3:].any()


@pytest.mark.quick
@pytest.mark.parametrize("traced", [False, True])
def test_images_without_a_track_stand_alone(traced):
    ids = jnp.array([-1, 7, -1, 3, -1, 7])
    tracks = (jax.jit(group_tracklets) if traced else group_tracklets)(ids)
    assert tracks.labels.tolist() == [0, 1, 2, 3, 4, 1]
    assert tracks.order.tolist() == [0, 1, 5, 2, 3, 4]
    assert tracks.counts[:6].tolist() == [1, 2, 1, 1, 1, 0]
    assert tracks.starts[:5].tolist() == [0, 1, 3, 4, 5]


def test_more_single_images_than_a_rounded_number_of_ids():
    # One id and 99 images without: T must be 100 and not 64.
    ids = np.full(102, -1)
    ids[::40] = 5
    tracks = group_tracklets(jnp.asarray(ids))
    assert tracks.counts.sum() == 102
    assert (tracks.counts > 0).sum() == len(np.unique(tracks.labels)) == 100


def _no_track(ids: np.ndarray) -> np.ndarray:
    """The ids with -1 in place of every third."""
    return np.where(np.arange(len(ids)) % 3 == 0, -1, ids)


@pytest.mark.parametrize(
    "call",
    [
        lambda ids: tracklet_pull_in(_scores(4), ids),
        lambda ids: tracklet_means(GALLERY, ids),
        lambda ids: tracklet_query_expansion(QUERY, GALLERY, ids, k=5),
        lambda ids: tracklet_k_reciprocal(QUERY, GALLERY, ids),
        lambda ids: parse("dex(k=5),tracklet_means,tracklet")(
            Embeddings(QUERY, GALLERY, ids)
        ),
        lambda ids: parse("tracklet")(Embeddings(QUERY, GALLERY, ids), top=9).ids,
    ],
    ids=["pull_in", "means", "dex", "k_reciprocal", "chain", "top"],
)
def test_no_track_is_a_track_of_its_own(call):
    ids = _no_track(TRACKS)
    alone = np.where(ids == -1, 1000 + np.arange(G), ids)
    expected = call(alone)
    np.testing.assert_array_equal(call(ids), expected)
    # As text, of which "-1" and "" are without a track; and beyond int32.
    np.testing.assert_array_equal(call(ids.astype(str)), expected)
    words = ["" if i == -1 else f"track {i}" for i in ids]
    np.testing.assert_array_equal(call(words), expected)
    wide = np.where(ids == -1, -1, ids.astype(np.int64) + 2**40)
    np.testing.assert_array_equal(call(wide), expected)


def test_no_track_inside_the_callers_jit():
    ids, scores = _no_track(TRACKS), _scores(4)
    traced = jax.jit(tracklet_pull_in)(scores, ids)
    np.testing.assert_array_equal(traced, tracklet_pull_in(scores, ids))
    means = jax.jit(tracklet_means)(GALLERY, ids)
    np.testing.assert_allclose(means, tracklet_means(GALLERY, ids), atol=1e-6)
    np.testing.assert_allclose(means[::3], unit(GALLERY)[::3], atol=1e-6)


def test_a_set_that_is_one_tracklet_is_noticed():
    # Of 40 images 21 are one tracklet.
    ids = np.arange(G)
    ids[5:26] = 7
    embeddings = Embeddings(QUERY, GALLERY, ids)
    message = "tracklet_ids: 21 of 40 images have the id of image 5 .* need the id -1"
    for call in (
        lambda: tracklet_means(GALLERY, ids),
        lambda: tracklet_pull_in(_scores(0), ids),
        lambda: parse("tracklet")(embeddings),
        # Images without a track change nothing about the others.
        lambda: tracklet_means(GALLERY, np.where(np.arange(G) == 30, -1, ids)),
    ):
        with pytest.warns(UserWarning, match=message) as caught:
            call()
        assert {w.filename for w in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse("none")(embeddings)  # reads no tracklets
        ids[5] = 1000  # half of the images
        tracklet_means(GALLERY, ids)
        ids[0] = -1
        tracklet_means(GALLERY, ids)
        tracklet_means(GALLERY[:10], np.zeros(10, int))  # a few images


@pytest.mark.quick
def test_means_by_hand():
    gallery = np.array([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])
    tracks = np.array([4, 4, 9])
    half = 0.5**0.5
    expected = [[half, half], [half, half], [-1, 0]]
    np.testing.assert_allclose(tracklet_means(gallery, tracks), expected, atol=1e-6)
    heavy = tracklet_means(gallery, tracks, weights=np.array([3.0, 4.0, 1.0]))
    np.testing.assert_allclose(heavy[:2], [[0.6, 0.8]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], r"weights: expected shape \(3,\), got \(2,\)"),
        ([1.0, -1.0, 1.0], "weights: expected finite values .* got -1.0 at 1"),
        ([0.0, 0.0, 1.0], "weights: all zero in the tracklet of image 0"),
        ([1.0, 1e300, 1.0], "weights: expected finite values .* got inf at 1"),
        (["a", "b", "c"], "weights: expected real numbers, got dtype <U1"),
        ([1j, 1, 1], "weights: expected real numbers, got dtype complex128"),
    ],
)
def test_means_refuse_senseless_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        tracklet_means(np.eye(3), np.array([1, 1, 2]), weights=np.array(weights))


@pytest.mark.quick
def test_pull_in_by_hand():
    # The list 2 (track 8), 1 (track 5), 3 (track 5), 0 (track 8) becomes 0 2, 1 3.
    scores = tracklet_pull_in(
        jnp.array([[0.1, 0.5, 0.9, 0.2]]), jnp.array([8, 5, 8, 5])
    )
    np.testing.assert_array_equal(scores, np.array([[0.9, 0.5, 0.9, 0.5]], np.float32))


@pytest.mark.quick
def test_pull_in_by_score_by_hand():
    # The list 2 (track 8), 1 (5), 3 (5), 0 (8): each track stays as it was ordered.
    scores = jnp.array([[0.1, 0.5, 0.9, 0.2]])
    pulled = tracklet_pull_in(scores, jnp.array([8, 5, 8, 5]), order="score")
    assert top_k(pulled, k=4).ids.tolist() == [[2, 0, 1, 3]]
    np.testing.assert_allclose(pulled, [[0.9, 0.5, 0.9, 0.5]], rtol=1e-6)
    with pytest.raises(ValueError, match="order: expected one of 'gallery', 'score'"):
        tracklet_pull_in(scores, jnp.array([8, 5, 8, 5]), order="rank")


@pytest.mark.quick
@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_pull_in_by_score_is_the_walk(seed):
    scores = _scores(seed)
    scores[:, seed % G] = -np.inf
    tracks = clusters(seed)[2]
    pulled = tracklet_pull_in(scores, tracks, order="score")
    raw = np.where(np.abs(scores) < np.finfo(np.float32).tiny, 0, scores)
    for row, values in zip(raw, np.asarray(pulled), strict=True):
        order = ranked(row)
        walk = pulled_in(order, tracks)
        # The same tracklets at the same places; inside each, the order of the ranking.
        place = {image: rank for rank, image in enumerate(order)}
        track = [(t, -1) if t != -1 else (-1, i) for i, t in enumerate(tracks)]
        start = {track[image]: walk.index(image) for image in reversed(walk)}
        keys = {image: (start[track[image]], place[image]) for image in walk}
        expected = sorted(walk, key=keys.__getitem__)
        masked = [i for i in expected if values[i] == -np.inf]
        found = [i for i in ranked(values) if values[i] > -np.inf]
        assert found == [i for i in expected if i not in masked]
    again = tracklet_pull_in(pulled, tracks, order="score")
    np.testing.assert_array_equal(again, pulled)


def test_pull_in_by_score_needs_all_scores():
    embeddings = Embeddings(QUERY, GALLERY, TRACKS)
    pipeline = parse("dex,tracklet(order=score)")
    scores = parse("dex")(embeddings)
    expected = tracklet_pull_in(scores, TRACKS, order="score")
    np.testing.assert_array_equal(pipeline(embeddings), expected)
    with pytest.raises(ValueError, match=r"top: tracklet\(order=score\) needs all sc"):
        pipeline(embeddings, top=5)


def _scores(seed: int) -> np.ndarray:
    """Few different values, zeros of both signs among them: ties everywhere."""
    rng = np.random.default_rng(seed)
    levels = np.array([-1.5, -1e-38, -0.0, 0, 1e-38, 0.25, 0.25, 2], np.float32)
    return levels[rng.integers(0, len(levels), (Q, G))]


@pytest.mark.quick
@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_pull_in_is_the_walk_and_once_is_enough(seed):
    # Numbers below the smallest normal one count as zero, as they do in XLA.
    scores = _scores(seed)
    tracks = clusters(seed)[2]
    pulled = tracklet_pull_in(scores, tracks)
    order = top_k(pulled, k=G).ids
    raw = np.where(np.abs(scores) < np.finfo(np.float32).tiny, 0, scores)
    for row, found in zip(raw, order, strict=True):
        assert found.tolist() == pulled_in(ranked(row), tracks)
    again = tracklet_pull_in(pulled, tracks)
    np.testing.assert_array_equal(again, pulled)
    np.testing.assert_allclose(pulled.max(axis=1), scores.max(axis=1), atol=1e-6)
    # The best few raw images are enough for the best few pulled in.
    few = pull_in_ranking(top_k(raw, k=7), group_tracklets(jnp.asarray(tracks)))
    np.testing.assert_array_equal(few.ids, order[:, :7])


@pytest.mark.filterwarnings("ignore:tracklet_ids")
@pytest.mark.parametrize("tracks", [np.arange(G)[::-1], np.full(G, 3)])
def test_single_images_stay_and_a_giant_tracklet_is_gallery_order(tracks):
    scores = np.random.default_rng(0).permutation(Q * G).reshape(Q, G)
    order = top_k(tracklet_pull_in(scores, tracks), k=G).ids
    for row, found in zip(scores, order, strict=True):
        assert found.tolist() == pulled_in(ranked(row), tracks)


@pytest.mark.quick
def test_masked_images_pull_nothing():
    # Track 5 (images 0, 3) is masked wholly, track 6 (1, 4) by half.
    row = jnp.array([[-jnp.inf, -jnp.inf, 0.3, -jnp.inf, 0.6]])
    tracks = jnp.array([5, 6, 7, 5, 6])
    pulled = tracklet_pull_in(row, tracks)
    np.testing.assert_allclose(pulled, [[-np.inf, 0.6, 0.3, -np.inf, 0.6]])
    few = pull_in_ranking(top_k(row, k=5), group_tracklets(tracks))
    assert few.ids.tolist() == top_k(pulled, k=5).ids.tolist() == [[1, 4, 2, 0, 3]]
    np.testing.assert_allclose(few.scores, [[0.6, 0.6, 0.3, -np.inf, -np.inf]])


@pytest.mark.quick
def test_separate_takes_the_smallest_steps():
    tiny, one = np.finfo(np.float32).tiny, np.float32(1)
    falling = jnp.array([1.0, 1.0, 0.5, 0.0, 0.0, -2.0, -jnp.inf])
    found = separate(falling, jnp.arange(7))
    below = np.nextafter(one, np.float32(0))
    expected = np.array([1, below, 0.5, 0, -tiny, -2, -np.inf], np.float32)
    np.testing.assert_array_equal(found, expected)


def test_same_inside_the_callers_jit():
    scores = _scores(1)
    plain = tracklet_pull_in(scores, TRACKS)
    traced = jax.jit(tracklet_pull_in)(scores, TRACKS)
    np.testing.assert_array_equal(traced, plain)
    means = jax.jit(tracklet_means)(GALLERY, TRACKS)
    np.testing.assert_allclose(means, tracklet_means(GALLERY, TRACKS), atol=1e-6)


def test_k_reciprocal_of_tracklets():
    names = list(dict.fromkeys(TRACKS.tolist()))
    rows = unit(GALLERY)
    means = unit(np.stack([rows[name == TRACKS].mean(axis=0) for name in names]))
    by_track = np.asarray(k_reciprocal(QUERY, means, k1=7, k2=2, lambda_=0.6))
    expected = by_track[:, [names.index(t) for t in TRACKS]]
    scores = tracklet_k_reciprocal(QUERY, GALLERY, TRACKS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    embeddings = Embeddings(QUERY, GALLERY, TRACKS)
    best = parse("tracklet_k_reciprocal")(embeddings, top=7)
    np.testing.assert_array_equal(best.ids, top_k(scores, k=7).ids)
    # Refine steps see images, so they may follow.
    cameras = np.arange(Q) % 3, np.arange(G) % 3
    chain_ = chain(steps.tracklet_k_reciprocal(), steps.same_camera(*cameras))
    best, every = chain_(embeddings, top=7), chain_(embeddings)
    np.testing.assert_array_equal(best.ids, top_k(every, k=7).ids)
    with pytest.raises(ValueError, match="tracklet_ids: tracklet_k_reciprocal needs"):
        jax.jit(tracklet_k_reciprocal)(QUERY, GALLERY, TRACKS)


@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_vectors(golden, case):
    tracks = np.load(golden / "rerank" / f"{case}_inputs.npz")["g_track"]
    vectors = np.load(golden / "rerank" / f"{case}_dex.npz")
    order = vectors["cos_order"]
    scores = np.empty(order.shape, np.float32)
    places = np.broadcast_to(-np.arange(order.shape[1]), order.shape)
    np.put_along_axis(scores, order, places, axis=1)
    found = top_k(tracklet_pull_in(scores, tracks), k=order.shape[1])
    np.testing.assert_array_equal(found.ids, vectors["pulled_in"])
    raw = Ranking(jnp.asarray(order[:, :100]), jnp.asarray(-np.arange(100.0)))
    raw = raw._replace(scores=jnp.broadcast_to(raw.scores, raw.ids.shape))
    short = pull_in_ranking(raw, group_tracklets(jnp.asarray(tracks)))
    np.testing.assert_array_equal(short.ids, vectors["pulled_in_top100"])


@pytest.mark.parametrize(
    ("scores", "tracks", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"scores: expected scores \[Q, G\]"),
        (np.full((2, 3), np.nan), np.zeros(3, int), "scores: 2 row.* NaN, first row 0"),
        (np.zeros((2, 3)), np.zeros(2, int), r"tracklet_ids: expected shape \(3,\)"),
        (np.zeros((2, 3)), 7, r"tracklet_ids: expected shape \(3,\), got \(\)"),
        (np.zeros((2, 3)), np.zeros(3), "tracklet_ids: .* dtype float64; convert"),
        (np.zeros((2, 3)), [1, "a", 2], "tracklet_ids: .* got both: 1 at 0 and 'a' at"),
    ],
)
def test_says_what_is_wrong(scores, tracks, message):
    with pytest.raises(ValueError, match=message):
        tracklet_pull_in(scores, tracks)


def test_equal_tracklets_stay_equal_wherever_they_stand():
    # The last of 77 rows of 5 numbers would be scaled with another last bit.
    row = np.random.default_rng(27).standard_normal((1, 5)).astype(np.float32)
    gallery = np.repeat(row, 77, 0)
    means = np.asarray(tracklet_means(gallery, np.arange(77)))
    np.testing.assert_array_equal(means, np.repeat(means[:1], 77, 0))
    best = parse("tracklet_means")(Embeddings(row, gallery, np.arange(77)), top=4)
    assert best.ids.tolist() == [[0, 1, 2, 3]]
