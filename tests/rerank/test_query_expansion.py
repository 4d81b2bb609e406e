"""AQE, alpha-QE and DEx against hand arithmetic, loops and reference vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.rerank import (
    alpha_query_expansion,
    average_query_expansion,
    tracklet_query_expansion,
)
from tests.reference import expansion as reference
from tests.rerank.cases import G, clusters

QUERY, GALLERY, TRACKS = clusters()


@pytest.mark.quick
def test_alpha_qe_by_hand():
    # The nearest image (0.6, 0.8) has the cosine 0.6: q + 0.6^2 g.
    gallery = jnp.array([[-1.0, 0.0], [3.0, 4.0]])
    found = alpha_query_expansion(jnp.array([[2.0, 0.0]]), gallery, k=1, alpha=2.0)
    total = np.array([1 + 0.36 * 0.6, 0.36 * 0.8])
    np.testing.assert_allclose(found[0], total / np.hypot(*total), atol=1e-6)


@pytest.mark.quick
def test_dex_by_hand():
    # Tracklet 5 holds images 0 and 3, its mean points along (1, 0); tracklet 2 holds 1
    # and 2. With k = 3 the images 0, 3 and then 1 are added, though 2 is nearer.
    gallery = np.array([[0.8, 0.6], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])
    tracks = np.array([5, 2, 2, 5])
    query = np.array([[1.0, 0.0]])
    found = tracklet_query_expansion(query, gallery, tracks, k=3, alpha=0.0)
    total = query[0] + gallery[0] + gallery[3] + gallery[1]
    np.testing.assert_allclose(found[0], total / np.hypot(*total), atol=1e-6)
    near = tracklet_query_expansion(
        query, gallery, tracks, k=3, alpha=0.0, within="similarity"
    )
    total = query[0] + gallery[0] + gallery[3] + gallery[2]
    np.testing.assert_allclose(near[0], total / np.hypot(*total), atol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 20, G])
@pytest.mark.parametrize("alpha", [0.0, 2.0, 2.5])
def test_agrees_with_the_equations(k, alpha):
    found = alpha_query_expansion(QUERY, GALLERY, k=k, alpha=alpha)
    expected = reference.alpha_query_expansion(QUERY, GALLERY, k, alpha)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for within in ("index", "similarity"):
        found = tracklet_query_expansion(
            QUERY, GALLERY, TRACKS, k=k, alpha=alpha, within=within
        )
        expected = reference.tracklet_query_expansion(
            QUERY, GALLERY, TRACKS, k, alpha, within
        )
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.filterwarnings("ignore:tracklet_ids")
@pytest.mark.parametrize("tracks", [np.arange(G)[::-1], np.zeros(G, int)])
def test_tracklets_of_one_image_and_one_giant_tracklet(tracks):
    found = tracklet_query_expansion(QUERY, GALLERY, tracks, k=7)
    expected = reference.tracklet_query_expansion(QUERY, GALLERY, tracks, 7, 2.0)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.quick
def test_opposite_images_add_nothing():
    query = jnp.array([[1.0, 0.0]])
    found = alpha_query_expansion(query, jnp.array([[-1.0, 0.1]]), k=1, alpha=1.5)
    np.testing.assert_array_equal(found, query)


def test_same_traced_and_lifted():
    tracks = jnp.asarray(TRACKS)
    alphas = jnp.array([0.0, 2.0])

    @jax.jit
    def dex(query, tracks, alpha):
        return tracklet_query_expansion(query, GALLERY, tracks, k=7, alpha=alpha)

    lifted = jax.vmap(dex, (None, None, 0))(QUERY, tracks, alphas)
    for alpha, row in zip(alphas, lifted, strict=True):
        plain = tracklet_query_expansion(QUERY, GALLERY, TRACKS, k=7, alpha=alpha)
        np.testing.assert_allclose(row, plain, atol=1e-6)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_properties(seed):
    query, gallery, tracks = clusters(seed)
    rng = np.random.default_rng(seed)
    plain = tracklet_query_expansion(query, gallery, tracks, k=7)
    # Length of rows, names of tracklets.
    scaled = gallery * np.exp(rng.normal(size=(G, 1))).astype(np.float32)
    np.testing.assert_allclose(
        tracklet_query_expansion(3 * query, scaled, 5 - tracks, k=7), plain, atol=1e-5
    )
    # Rotation of the space.
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    turned = tracklet_query_expansion(query @ turn, gallery @ turn, tracks, k=7)
    np.testing.assert_allclose(turned, plain @ turn, atol=1e-5)
    # AQE is alpha-QE at 0; DEx over single images is alpha-QE, in any gallery order.
    order = rng.permutation(G)
    near = alpha_query_expansion(query, gallery, k=7)
    single = tracklet_query_expansion(query, gallery[order], np.arange(G), k=7)
    np.testing.assert_allclose(single, near, atol=1e-5)
    average = average_query_expansion(query, gallery, k=7)
    flat = alpha_query_expansion(query, gallery, k=7, alpha=0.0)
    np.testing.assert_array_equal(average, flat)


@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_vectors(golden, case):
    x = np.load(golden / "rerank" / f"{case}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{case}_qe.npz")
    for alpha, k in ((0, 20), (2, 20), (3, 20)):
        found = alpha_query_expansion(x["q"], x["g"], k=k, alpha=alpha)
        expected = vectors[f"alphaqe_a{alpha}_k{k}"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_vectors_of_dex(golden, case):
    x = np.load(golden / "rerank" / f"{case}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{case}_dex.npz")
    cosine = np.take_along_axis(
        x["q"] @ x["g"].T, vectors["image_order_index"][:, :20], axis=1
    )
    # The vectors take even powers of negative cosines as they are; here they are
    # clipped, so the one query of case b that meets any is another.
    alike = (cosine >= 0).all(axis=1)
    assert alike.sum() >= alike.size - 1
    for within, name in (("index", "index"), ("similarity", "sim")):
        for alpha in (0, 2):
            found = tracklet_query_expansion(
                x["q"], x["g"], x["g_track"], k=20, alpha=alpha, within=within
            )
            expected = vectors[f"dex_{name}_a{alpha}_k20"]
            np.testing.assert_allclose(found[alike], expected[alike], atol=1e-5)


def test_k_beyond_the_gallery_warns_once():
    with pytest.warns(UserWarning, match="k=60 is more than the 40") as caught:
        found = tracklet_query_expansion(QUERY, GALLERY, TRACKS, k=60)
    assert len(caught) == 1
    full = tracklet_query_expansion(QUERY, GALLERY, TRACKS, k=G)
    np.testing.assert_array_equal(found, full)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"alpha": -1.0}, "alpha: expected a number of at least 0, got -1.0"),
        ({"alpha": "2"}, "alpha: expected a number of at least 0, got '2'"),
        ({"within": "time"}, "within: expected one of 'index', 'similarity'"),
        ({"tracklet_ids": TRACKS[1:]}, r"tracklet_ids: expected shape \(40,\)"),
        ({"tracklet_ids": TRACKS * 0.5}, "tracklet_ids: expected integers"),
        ({"query": QUERY[:, 1:]}, "query has dimension 7 and gallery has 8"),
        ({"gallery": GALLERY * np.nan}, "gallery: 40 row.*NaN"),
    ],
)
def test_says_what_is_wrong(change, message):
    options = {"query": QUERY, "gallery": GALLERY, "tracklet_ids": TRACKS} | change
    with pytest.raises(ValueError, match=message):
        tracklet_query_expansion(**options)
