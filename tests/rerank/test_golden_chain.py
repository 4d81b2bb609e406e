"""Chains against what slow float64 loops make of them, step by step, to the metrics."""

import jax
import numpy as np
import pytest

from dex_jax import metrics
from dex_jax.evaluation import rows_for
from dex_jax.rerank import Embeddings, Ranking, parse, top_k
from tests.rerank import make_golden_chain as make

pytestmark = pytest.mark.quick

with np.load(make.FILE) as entries:
    GOLDEN = dict(entries)
GIVEN = make.Inputs(*(GOLDEN[name] for name in make.Inputs._fields))
EMBEDDINGS = Embeddings(*GIVEN[:3])


def test_the_file_is_what_the_script_writes():
    made = dict(make.golden(make.inputs()))
    assert set(made) == set(GOLDEN)
    for name, value in made.items():
        np.testing.assert_allclose(GOLDEN[name], value, rtol=0, atol=1e-7, err_msg=name)


def test_the_inputs_hold_duplicates_and_near_duplicates():
    rows = GIVEN.gallery / np.linalg.norm(GIVEN.gallery, axis=1, keepdims=True)
    cosine = (rows @ rows.T)[np.triu_indices(make.G, 1)]
    assert np.sum(cosine > 1 - 1e-6) >= 6
    assert np.sum((cosine > 0.999) & (cosine < 1 - 1e-6)) >= 3
    assert len(np.unique(GIVEN.gallery, axis=0)) < make.G


def test_every_row_of_the_papers_table_is_there():
    names = {",".join(step.split("(")[0] for step in chain) for chain in make.CHAINS}
    assert {row.chain for row in rows_for("table6").rows} <= names


@pytest.mark.parametrize("chain", make.CHAINS, ids=",".join)
def test_every_step(chain):
    """One after the other, each on what our own steps before it have left."""
    embeddings, scores = EMBEDDINGS, None
    for place, text in enumerate(chain):
        key, pipeline = ",".join(chain[: place + 1]), parse(text)
        if pipeline.expand:
            embeddings = pipeline.expand[0](embeddings)
            part = "gallery" if text == make.DBA else "query"
            found = getattr(embeddings, part)
            np.testing.assert_allclose(found, GOLDEN[f"{key}/{part}"], atol=2e-6)
        else:
            scores = pipeline.rank(embeddings) if scores is None else scores
            for step in pipeline.refine:
                scores = step(scores, embeddings)
            check_scores(key, scores)
            check_ranking(key, top_k(scores, k=make.G))


@pytest.mark.parametrize("chain", make.CHAINS, ids=",".join)
def test_the_chain_and_its_metrics(chain):
    key = ",".join(chain)
    pipeline = parse(key)
    scores, ranking = pipeline(EMBEDDINGS), pipeline(EMBEDDINGS, top=make.G)
    check_scores(key, scores)
    check_ranking(key, top_k(scores, k=make.G))
    check_ranking(key, ranking)
    for found in (scores, ranking):
        for name, top in make.TOPS.items():
            check_metrics(f"{key}/{name}", found, top)


def check_scores(key: str, scores: jax.Array) -> None:
    expected = GOLDEN[f"{key}/scores"]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=5e-6, err_msg=key)


def check_ranking(key: str, ranking: Ranking) -> None:
    """The same images, but for those whose scores differ by less than float32 tells."""
    expected, ids = GOLDEN[f"{key}/scores"], GOLDEN[f"{key}/ids"]
    down = np.take_along_axis(expected, ids.astype(int), axis=1)
    found = np.take_along_axis(expected, np.asarray(ranking.ids), axis=1)
    np.testing.assert_allclose(found, down, rtol=0, atol=5e-6, err_msg=key)
    np.testing.assert_allclose(ranking.scores, down, rtol=0, atol=5e-6, err_msg=key)
    assert all(sorted(row) == list(range(make.G)) for row in ranking.ids.tolist())
    gap = down[:, :-1] - down[:, 1:]
    # Of equal rows the first comes first. What is summed over lists ties by chance.
    tied = (gap == 0) & (key.split("(")[0] in ("none", "tracklet"))
    clear = np.pad((gap > 5e-6) | tied, ((0, 0), (1, 1)), constant_values=True)
    settled = clear[:, :-1] & clear[:, 1:]
    np.testing.assert_array_equal(ranking.ids[settled], ids[settled], err_msg=key)


def check_metrics(key: str, found: jax.Array | Ranking, top: int | None) -> None:
    result = metrics.evaluate(
        found,
        query_identities=GIVEN.query_identities,
        gallery_identities=GIVEN.gallery_identities,
        query_cameras=GIVEN.query_cameras,
        gallery_cameras=GIVEN.gallery_cameras,
        top=top,
        max_rank=make.CURVE,
    )
    for name in ("average_precision", "mean_ap", "cmc", "mean_inp"):
        np.testing.assert_allclose(
            getattr(result, name), GOLDEN[f"{key}/{name}"], rtol=0, atol=1e-6
        )
