"""Rows that a step makes zero stay zero, and score 0, in all steps behind it."""

import numpy as np
import pytest

from dex_jax.neighbors import form
from dex_jax.rerank import Embeddings, k_reciprocal, parse

pytestmark = pytest.mark.usefixtures("quick_programs")

RNG = np.random.default_rng(0)
QUERY = RNG.standard_normal((3, 6)).astype(np.float32)
GALLERY = RNG.standard_normal((24, 6)).astype(np.float32)
GALLERY[5] = -GALLERY[4]  # the mean of the two is zero
TRACKS = np.arange(24)
TRACKS[5] = TRACKS[4]
EMBEDDINGS = Embeddings(QUERY, GALLERY, TRACKS)


@pytest.mark.parametrize("kind", ["cpu", "wide"])
def test_a_mean_of_zero_scores_zero(kind):
    with form(kind):
        scores = np.asarray(parse("tracklet_means")(EMBEDDINGS))
        ranking = parse("tracklet_means")(EMBEDDINGS, top=24)
    np.testing.assert_array_equal(scores[:, 4:6], 0)
    assert (np.delete(scores, [4, 5], axis=1) != 0).all()
    kept = np.take_along_axis(scores, np.asarray(ranking.ids), axis=1)
    np.testing.assert_allclose(ranking.scores, kept, atol=1e-6)


@pytest.mark.parametrize("kind", ["cpu", "wide"])
@pytest.mark.parametrize("top", [None, 10])
@pytest.mark.parametrize(
    "behind",
    [
        "aqe(k=24)",
        "dex(k=6)",
        "dba(k=3)",
        "k_reciprocal(k1=5,k2=2)",
        "diffusion(k=24,k_query=24)",
        "diffusion(solver=cg)",
        "tracklet_k_reciprocal(k1=5)",
        "tracklet",
    ],
)
@pytest.mark.filterwarnings("ignore:k=:UserWarning", "ignore:k_query=:UserWarning")
def test_they_score_zero_behind_every_step(kind, top, behind):
    with form(kind):
        found = parse(f"tracklet_means,{behind}")(EMBEDDINGS, top=top)
    scores = np.asarray(found if top is None else found.scores)
    assert np.isfinite(scores).all()
    if top is None:
        np.testing.assert_array_equal(scores[:, 4:6], 0)
    else:
        np.testing.assert_array_equal(scores[(found.ids == 4) | (found.ids == 5)], 0)


def test_a_query_that_an_image_cancels_scores_zero():
    opposite = Embeddings(-GALLERY[:1], GALLERY[:1].repeat(3, axis=0))
    scores = parse("aqe(k=1),k_reciprocal(k1=1,k2=1)")(opposite)
    np.testing.assert_array_equal(scores, 0)


def test_what_a_user_gives_is_refused():
    means = parse("tracklet_means").expand[0](EMBEDDINGS)
    with pytest.raises(ValueError, match=r"gallery: 2 row\(s\) are all zero.*row 4"):
        k_reciprocal(QUERY, means.gallery)
