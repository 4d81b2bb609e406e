"""NeighborCache shared between chains: searched once, and nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.rerank import Embeddings, NeighborCache, parse

pytestmark = pytest.mark.usefixtures("quick_programs")

TEXTS = (
    "none",
    "dba(k=2)",
    "k_reciprocal(k1=5,k2=2)",
    "dex(k=3),diffusion(k=4,k_query=3)",
    "dba(k=2),k_reciprocal(k1=5,k2=2)",
    "dex(k=3),dba(k=2),diffusion(k=4,k_query=3)",
)


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    return Embeddings(
        jnp.asarray(rows[:4]), jnp.asarray(rows[4:]), jnp.arange(16, dtype=int) // 3
    )


def test_shared_graphs_change_no_score_and_are_searched_once(embeddings):
    pipelines = [parse(text) for text in TEXTS]
    cache = NeighborCache(least=max(pipeline.width(16) for pipeline in pipelines))
    for pipeline in pipelines:
        np.testing.assert_allclose(
            pipeline(embeddings, cache=cache), pipeline(embeddings), atol=1e-6
        )
    assert cache.searches == 2  # the plain gallery, and the augmented one
    alone = NeighborCache()
    for pipeline in pipelines:
        pipeline(embeddings, top=5, cache=alone)
    assert alone.searches > 2  # wider lists are searched again


def test_another_gallery_is_another_graph(embeddings):
    pipeline, cache = parse("dba(k=2)"), NeighborCache(keep=1)
    other = embeddings._replace(gallery=embeddings.gallery[::-1])
    for each in (embeddings, embeddings, other, embeddings):
        np.testing.assert_allclose(
            pipeline(each, cache=cache), pipeline(each), atol=1e-6
        )
    assert cache.searches == 3  # one is kept, so the first is searched again


def test_the_gallery_used_last_is_kept(embeddings):
    cache = NeighborCache(keep=2)
    for k in (2, 3, 4):  # the plain gallery each time, and another augmented one
        parse(f"dba(k={k},k_max=4),diffusion(k=3,k_query=3)")(embeddings, cache=cache)
    assert cache.searches == 4


def test_inside_jit_chains_search_for_themselves(embeddings):
    pipeline, cache = parse("dba(k=2)"), NeighborCache()
    inside = jax.jit(lambda e: pipeline(e, cache=cache))(embeddings)
    np.testing.assert_allclose(inside, pipeline(embeddings), atol=1e-6)
    assert cache.searches == 0


def test_options_are_checked():
    with pytest.raises(ValueError, match="least: expected at least 0, got -1"):
        NeighborCache(least=-1)
    with pytest.raises(ValueError, match="keep: expected at least 1, got 0"):
        NeighborCache(keep=0)
