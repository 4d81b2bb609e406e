"""The contract: public names, options by keyword, documented with an example."""

import inspect

import pytest

from dex_jax import neighbors, rerank
from dex_jax.rerank import steps

# Data arguments, then options with the paper's values.
CONTRACT = {
    "cosine_similarity": "query, gallery",
    "average_query_expansion": "query, gallery, *, k=20, k_max=None",
    "alpha_query_expansion": "query, gallery, *, k=20, alpha=2.0, k_max=None",
    "tracklet_query_expansion": (
        "query, gallery, tracklet_ids, *, k=20, alpha=2.0, within='index', k_max=None"
    ),
    "database_augmentation": (
        "gallery, *, k=10, alpha=0.0, include_self='plus', k_max=None"
    ),
    "k_reciprocal": (
        "query, gallery, *, k1=60, k2=30, lambda_=0.5, k1_max=None, k2_max=None"
    ),
    "diffusion": (
        "query, gallery, *, k=50, k_query=25, alpha=0.95, gamma=3.0, iterations=25, "
        "solver='power', initial='y', k_max=None, k_query_max=None, remat=False"
    ),
    "tracklet_pull_in": "scores, tracklet_ids, *, order='gallery'",
    "tracklet_means": "gallery, tracklet_ids, *, weights=None",
    "tracklet_k_reciprocal": (
        "query, gallery, tracklet_ids, *, k1=7, k2=2, lambda_=0.6, k1_max=None, "
        "k2_max=None"
    ),
    "fuse": "embeddings, *, method='sum'",
    "fuse_scores": "scores, *, weights=None",
    "side_distance_bias": "scores, query_side, gallery_side, *, weight",
    "same_camera_penalty": "scores, query_cameras, gallery_cameras, *, penalty=inf",
    "top_k": "scores, *, k",
    "parse": "text",
    "chain": "*links",
}
STEPS = {
    "cosine": "",
    "aqe": "*, k=20, k_max=None",
    "alpha_qe": "*, k=20, alpha=2.0, k_max=None",
    "dex": "*, k=20, alpha=2.0, within='index', k_max=None",
    "dba": "*, k=10, alpha=0.0, include_self='plus', k_max=None",
    "tracklet_means": "*, weights=None",
    "k_reciprocal": "*, k1=60, k2=30, lambda_=0.5, k1_max=None, k2_max=None",
    "tracklet_k_reciprocal": "*, k1=7, k2=2, lambda_=0.6, k1_max=None, k2_max=None",
    "diffusion": (
        "*, k=50, k_query=25, alpha=0.95, gamma=3.0, iterations=25, solver='power', "
        "initial='y', k_max=None, k_query_max=None, remat=False"
    ),
    "tracklet": "*, order='gallery'",
    "side_bias": "query_side, gallery_side, *, weight",
    "same_camera": "query_cameras, gallery_cameras, *, penalty=inf",
    "add_scores": "scores, *, weight=1.0",
}
FUNCTIONS = sorted(
    name for name in rerank.__all__ if inspect.isfunction(getattr(rerank, name))
)


def _signature(function) -> str:
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))[1:-1]


def test_every_public_function_is_in_the_contract():
    assert set(FUNCTIONS) == set(CONTRACT)
    assert set(steps.__all__) == set(STEPS)
    extra = {"Embeddings", "NeighborCache", "Ranking", "Pipeline", "steps"}
    assert set(rerank.__all__) == set(CONTRACT) | extra


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name):
    assert _signature(getattr(rerank, name)) == CONTRACT[name]


@pytest.mark.parametrize("name", sorted(STEPS))
def test_signatures_of_steps(name):
    assert _signature(getattr(steps, name)) == STEPS[name]


def test_signature_of_the_search():
    expected = "queries, database, *, k, exclude_self=False, precision='highest'"
    assert _signature(neighbors.nearest_neighbors) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_say_what_goes_in_and_out_and_show_it(name):
    text = inspect.getdoc(getattr(rerank, name)) or ""
    for part in ("Args:", "Returns:", "Raises:", "Example:", ">>> "):
        assert part in text


def test_fields():
    assert rerank.Embeddings._fields == ("query", "gallery", "tracklet_ids")
    assert rerank.Ranking._fields == ("ids", "scores")
    assert neighbors.Neighbors._fields == ("ids", "scores")
