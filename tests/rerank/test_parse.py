"""Chains from text: the same as those composed by hand, or what is wrong with it."""

import numpy as np
import pytest

from dex_jax.rerank import Embeddings, chain, cosine_similarity, parse, steps
from tests.rerank.cases import clusters

EMBEDDINGS = Embeddings(*clusters())


@pytest.mark.parametrize("text", ["none", " none ", "cosine", "cosine()"])
def test_plain_cosine(text):
    expected = cosine_similarity(EMBEDDINGS.query, EMBEDDINGS.gallery)
    np.testing.assert_array_equal(parse(text)(EMBEDDINGS), expected)


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("dex,tracklet", (steps.dex(), steps.tracklet())),
        (
            " dex( k = 7,alpha=0.5 ) , dba(k=5,include_self='top_k',k_max=6)",
            (
                steps.dex(k=7, alpha=0.5),
                steps.dba(k=5, include_self="top_k", k_max=6),
            ),
        ),
        (
            "tracklet_means,aqe(k=3),k_reciprocal(k1=9,k2=4,lambda_=1e-1)",
            (
                steps.tracklet_means(),
                steps.aqe(k=3),
                steps.k_reciprocal(k1=9, k2=4, lambda_=0.1),
            ),
        ),
    ],
)
def test_text_is_the_chain_of_its_steps(text, links):
    pipeline, expected = parse(text), chain(*links)
    for kind in ("expand", "rank", "refine"):
        found, by_hand = getattr(pipeline, kind), getattr(expected, kind)
        assert _names(found) == _names(by_hand)
    np.testing.assert_array_equal(pipeline(EMBEDDINGS), expected(EMBEDDINGS))


def _names(links) -> list[str]:
    return [link.name for link in (links if isinstance(links, tuple) else (links,))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dexx", "unknown step 'dexx'; allowed are none, aqe, alpha_qe, dex, dba"),
        ("dex(q=1)", "dex has no option 'q=1'; allowed are k=, alpha=, within="),
        ("dex(k)", "dex has no option 'k'; allowed are k="),
        ("cosine(k=1)", "cosine has no option 'k=1'; allowed are none"),
        ("dex(k=1,k=2)", "dex has the option 'k' twice"),
        ("dex(k=ten)", "dex: k: expected a whole number, got 'ten'"),
        ("diffusion(alpha=2)", "diffusion: alpha: expected a number of at least 0 and"),
        ("dba(include_self=no)", "dba: include_self: expected one of 'plus', 'top_k'"),
        ("dex(k=1", r"cannot read 'dex\(k=1'"),
        ("dex,,dba", "cannot read ''"),
        ("tracklet,dex", r"dex cannot stand there in \(tracklet, dex\); allowed are"),
    ],
)
def test_says_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
