"""The form for CPUs and the wide form give the same, on every set of vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import rerank
from dex_jax.neighbors import form, nearest_neighbors
from dex_jax.rerank import Embeddings, parse
from tests.rerank.cases import clusters, unit_signs

# Two programs of one sort are compared, so neither needs the last optimisations.
pytestmark = pytest.mark.usefixtures("quick_programs")

# Chains that pass through every kernel.
CHAINS = (
    "none",
    "aqe",
    "alpha_qe",
    "dex",
    "dex(within=similarity)",
    "dba",
    "dba(k=5,alpha=2,include_self=top_k)",
    "tracklet_means",
    "k_reciprocal",
    "k_reciprocal(k1=20,k2=6,lambda_=0.3)",
    "dex,dba,k_reciprocal",
    "tracklet_k_reciprocal",
    "diffusion",
    "diffusion(solver=cg)",
    "dex,diffusion,tracklet",
)


@pytest.mark.parametrize("case", ["a", "b"])
@pytest.mark.parametrize("text", CHAINS)
def test_scores_of_the_reference_inputs(golden, case, text):
    inputs = np.load(golden / "rerank" / f"{case}_inputs.npz")
    embeddings = Embeddings(inputs["q"], inputs["g"], inputs["g_track"])
    found = []
    for name in ("cpu", "wide"):
        with form(name):
            found.append(np.asarray(parse(text)(embeddings)))
    np.testing.assert_allclose(found[0], found[1], atol=5e-7)


@pytest.mark.parametrize("text", ["k_reciprocal(k1=12,k2=6)", "diffusion(k=9)", "none"])
def test_ids_where_products_are_exact(text):
    rows = unit_signs(11, rows=90)
    rows[40:60] = rows[20:40]  # equal rows
    embeddings = Embeddings(rows[:9], rows[9:])
    found = []
    for name in ("cpu", "wide"):
        with form(name):
            found.append(parse(text)(embeddings, top=40))
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=5e-7)
    if text == "none":
        np.testing.assert_array_equal(found[0].ids, found[1].ids)


@pytest.mark.parametrize("name", ["cpu", "wide"])
def test_lists_where_products_are_exact(name):
    rows = unit_signs(12, rows=300)
    rows[100:200] = rows[:100]
    expected = np.argsort(-(rows @ rows.T), axis=1, kind="stable")[:, :17]
    with form(name):
        np.testing.assert_array_equal(nearest_neighbors(rows, rows, k=17).ids, expected)


def _loops(run, *args) -> tuple[int, int]:
    """Loops of a lowered program, and those whose length is not a constant in it."""
    with form("wide"):
        text = jax.jit(run).lower(*args).as_text()
    whiles = text.split("stablehlo.while")[1:]
    open_ = 0
    for loop in whiles:
        test = loop.split("stablehlo.return")[0]
        # A counted loop compares its counter with a constant.
        open_ += "stablehlo.compare" not in test or not _counted(test)
    return len(whiles), open_


def _counted(test: str) -> bool:
    constants = {
        line.split("=")[0].strip()
        for line in test.splitlines()
        if "stablehlo.constant" in line
    }
    compare = next(line for line in test.splitlines() if "stablehlo.compare" in line)
    operands = compare.split("LT,")[-1].split(":")[0]
    return any(name in constants for name in map(str.strip, operands.split(",")))


WIDE_PROGRAMS = {
    "search": (lambda q, g: nearest_neighbors(q, g, k=20), 0),
    "itself": (lambda q, g: nearest_neighbors(g, g, k=20), 0),
    "alpha_qe": (lambda q, g: rerank.alpha_query_expansion(q, g, k=8), 0),
    "dba": (lambda q, g: rerank.database_augmentation(g, k=8), 0),
    "diffusion": (lambda q, g: rerank.diffusion(q, g, k=20, k_query=9), 0),
    # The supports of the queries differ too much to make all as long as the longest.
    "k_reciprocal": (lambda q, g: rerank.k_reciprocal(q, g, k1=8, k2=3), 1),
}


@pytest.mark.parametrize("name", WIDE_PROGRAMS)
def test_loops_of_the_wide_form_have_known_lengths(name):
    run, expected = WIDE_PROGRAMS[name]
    query = jax.ShapeDtypeStruct((64, 16), jnp.float32)
    gallery = jax.ShapeDtypeStruct((900, 16), jnp.float32)
    total, open_ = _loops(run, query, gallery)
    assert open_ == expected
    # Loops over blocks, neighbours and steps; one more is worth a look.
    assert total <= 12
    with form("cpu"):
        text = jax.jit(run).lower(query, gallery).as_text()
    assert text.count("stablehlo.while") >= total or name == "alpha_qe"


def test_forms_agree_under_vmap_over_options():
    query, gallery, tracks = clusters()
    embeddings = Embeddings(query, gallery, tracks)

    def run(alpha):
        pipeline = rerank.chain(
            rerank.steps.dex(k=7, alpha=alpha), rerank.steps.k_reciprocal(k1=6, k2=3)
        )
        return pipeline(embeddings)

    alphas = jnp.array([0.5, 2.0])
    found = []
    for name in ("cpu", "wide"):
        with form(name):
            found.append(jax.vmap(run)(alphas))
    np.testing.assert_allclose(found[0], found[1], atol=5e-7)
