"""Diffusion against hand arithmetic, dense matrices and reference vectors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._search import self_lists
from dex_jax.rerank import Embeddings, _diffusion_graph, diffusion, parse
from dex_jax.rerank._diffusion import conjugate_gradients
from tests.reference import diffusion as reference
from tests.reference.expansion import unit
from tests.rerank.cases import clusters

QUERY, GALLERY, _ = clusters()


def _dense(k: int, k_query: int, gamma: float = 3.0):
    links = reference.graph(GALLERY, k, gamma)
    return links, reference.start(QUERY, GALLERY, k_query, gamma)


@pytest.mark.quick
def test_two_joined_images_by_hand():
    # Images 0 and 1 are joined by weight 1 after normalisation, image 2 is alone. The
    # query starts from image 0 with cos^3 = 1 and takes one step:
    # f0 = (1, 0, 0), f1 = .95 (0, 1, 0) + .05 (1, 0, 0).
    gallery = np.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.1]])
    scores = diffusion(np.array([[2.0, 0.0]]), gallery, k=2, k_query=1, iterations=1)
    np.testing.assert_allclose(scores, [[0.05, 0.95, 0]], atol=1e-6)
    # Converged: f0 = .95 f1 + .05 and f1 = .95 f0.
    scores = diffusion(np.array([[2.0, 0.0]]), gallery, k=2, k_query=1, solver="cg")
    first = 0.05 / (1 - 0.95**2)
    # Residuals stop at 1e-6; errors may be (1 + .95) / (1 - .95) = 39 times those.
    np.testing.assert_allclose(scores, [[first, 0.95 * first, 0]], atol=5e-6)


@pytest.mark.quick
def test_lonely_images_keep_their_start():
    # k = 1 leaves each image its own place alone: no edges, f = (1 - alpha) y.
    start = reference.start(QUERY, GALLERY, 20, 3.0)
    scores = diffusion(QUERY, GALLERY, k=1, k_query=20, initial="zero")
    np.testing.assert_allclose(scores, 0.05 * start, atol=1e-6)
    scores = diffusion(QUERY, GALLERY, k=1, k_query=20, solver="cg")
    np.testing.assert_allclose(scores, 0.05 * start, atol=1e-6)


@pytest.mark.quick
def test_a_query_that_nothing_resembles_scores_zero():
    scores = diffusion(-GALLERY[:1], GALLERY[:1], k=1, k_query=1, solver="cg")
    np.testing.assert_array_equal(scores, [[0]])


@pytest.mark.parametrize("k", [9, 40])
@pytest.mark.parametrize("initial", ["y", "zero"])
def test_power_agrees_with_the_equations(k, initial):
    links, start = _dense(k, 7)
    expected = reference.power(links, start, 0.95, 25, initial)
    scores = diffusion(QUERY, GALLERY, k=k, k_query=7, initial=initial)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * expected.max())


@pytest.mark.quick
def test_cg_agrees_with_the_inverse_and_leaves_no_residual():
    links, start = _dense(9, 7)
    scores = np.asarray(diffusion(QUERY, GALLERY, k=9, k_query=7, solver="cg"))
    expected = reference.exact(links, start, 0.95)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * expected.max())
    residual = scores - 0.95 * scores @ links.T - 0.05 * start
    size = np.linalg.norm(0.05 * start, axis=1)
    assert np.all(np.linalg.norm(residual, axis=1) < 5e-6 * size)


def test_cg_stops_when_all_columns_have_converged():
    matrix = jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    right = jnp.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    solved = conjugate_gradients(lambda x: matrix @ x, right, most=jnp.int32(50))
    np.testing.assert_allclose(solved[:, 0], 1, atol=1e-6)
    np.testing.assert_array_equal(solved[:, 1], 0)
    none = conjugate_gradients(lambda x: matrix @ x, right, most=jnp.int32(0))
    np.testing.assert_array_equal(none, 0)


@pytest.mark.quick
def test_the_graph_is_the_one_of_eq_9():
    rows = unit(GALLERY).astype(np.float32)
    lists = self_lists(jnp.asarray(rows), k=9)
    weights = np.asarray(
        _diffusion_graph.edge_weights(lists, _diffusion_graph.mutual(lists), 3.0)
    )
    dense = np.zeros((len(rows), len(rows)))
    np.put_along_axis(dense, np.asarray(lists.ids), weights, axis=1)
    np.testing.assert_allclose(dense, reference.graph(GALLERY, 9, 3.0), atol=1e-6)


@pytest.mark.parametrize(("most", "sizes"), [(2, [250, 250]), (8, [167, 167, 166])])
def test_the_packed_graph_multiplies_as_the_dense_one(monkeypatch, most, sizes):
    block = _diffusion_graph.Block(most, 32)
    monkeypatch.setattr(_diffusion_graph, "block_size", lambda rows: block)
    monkeypatch.setattr(_diffusion_graph, "_LEAST_ROWS", 150)
    # A cone of directions, and 20 strangers that it attracts without listing them.
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(500, 8))
    rows[:, 0] += np.where(np.arange(500) < 20, 3, 12)
    rows = unit(rows).astype(np.float32)
    lists = self_lists(jnp.asarray(rows), k=13)
    packed = _diffusion_graph.mutual_graph(lists, 3.0)
    place = np.asarray(packed.place)
    assert [edges.ids.shape[1] for edges in packed.blocks] == sizes
    degree = np.asarray(_diffusion_graph.mutual(lists)).sum(axis=1)
    assert degree.min() == 0 and degree.max() > 10
    falling = degree[np.argsort(place)]
    assert np.all(np.diff(falling) <= 0)
    # A block does the work of its fullest row, not of the longest list.
    firsts = np.cumsum([0, *sizes[:-1]])
    trips = [int(np.asarray(edges.trips)) for edges in packed.blocks]
    assert trips == (-(-falling[firsts] // 10)).tolist()
    assert trips[0] > trips[-1]
    f = rng.random((500, 3)).astype(np.float32)
    found = _diffusion_graph.propagate(packed, jnp.zeros((500, 3)).at[place].set(f))
    expected = reference.graph(rows, 13, 3.0) @ f
    np.testing.assert_allclose(found[place], expected, atol=1e-6)


def test_no_step_copies_the_graph():
    # A slice of the graph as an operand of the inner loop would be copied each time.
    lists = Neighbors(jnp.zeros((20_000, 20), jnp.int32), jnp.zeros((20_000, 20)))

    @jax.jit
    def steps(lists, f):
        graph = _diffusion_graph.mutual_graph(lists, 3.0)
        return jax.lax.fori_loop(
            0, 25, lambda _, f: _diffusion_graph.propagate(graph, f), f
        )

    text = steps.lower(lists, jnp.zeros((20_000, 8))).compile().as_text() or ""
    rows = 20_000 // (20_000 // _diffusion_graph._LEAST_ROWS)
    bodies = re.findall(r"^%\S*region\S* .*?^}", text, re.MULTILINE | re.DOTALL)
    assert any(f"[20,{rows}]" in body for body in bodies)
    for body in bodies:
        assert not re.search(rf"= \w+\[20,{rows}\]\S* (fusion|copy|slice)", body)


def test_same_over_blocks_of_queries_and_for_the_best_alone():
    # 140 queries are five blocks of 28 to 32; the last one begins early.
    query = np.tile(QUERY, (24, 1))[:140]
    scores = diffusion(query, GALLERY, k=9, k_query=7)
    few = diffusion(QUERY, GALLERY, k=9, k_query=7)
    np.testing.assert_allclose(scores, np.tile(few, (24, 1))[:140], atol=1e-6)
    best = parse("diffusion(k=9,k_query=7)")(Embeddings(query, GALLERY), top=5)
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(best.ids, order)


def test_a_sweep_of_traced_options_compiles_once_and_equals_single_calls():
    traces = []

    @jax.jit
    @jax.vmap
    def sweep(alpha, gamma, iterations):
        traces.append(alpha)
        return diffusion(
            QUERY,
            GALLERY,
            k=9,
            k_query=7,
            alpha=alpha,
            gamma=gamma,
            iterations=iterations,
        )

    options = [(0.9, 3.0, 2), (0.95, 2.0, 25), (0.5, 1.5, 0)]
    columns = [jnp.array(c) for c in zip(*options, strict=True)]
    found = sweep(*columns)
    sweep(*[c[::-1] for c in columns])
    assert len(traces) == 1
    for (alpha, gamma, iterations), scores in zip(options, found, strict=True):
        links, start = _dense(9, 7, gamma)
        expected = reference.power(links, start, alpha, iterations, "y")
        np.testing.assert_allclose(scores, expected, atol=1e-5 * expected.max())


@given(seed=st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_properties(seed):
    query, gallery, _ = clusters(seed)
    rng = np.random.default_rng(seed)
    scores = np.asarray(diffusion(query, gallery, k=9, k_query=7))
    assert scores.min() >= 0
    order = rng.permutation(len(gallery))
    scale = np.exp(rng.normal(size=(len(gallery), 1))).astype(np.float32)
    moved = diffusion(2 * query, (scale * gallery)[order], k=9, k_query=7)
    np.testing.assert_allclose(moved, scores[:, order], atol=1e-5)


@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_vectors(golden, case):
    x = np.load(golden / "rerank" / f"{case}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{case}_diffusion.npz")
    for name, solver, initial in (
        ("iter25_f0y", "power", "y"),
        ("iter25_f0zero", "power", "zero"),
        ("exact", "cg", "y"),
    ):
        expected = vectors[f"k50_kq25_{name}"]
        scores = diffusion(x["q"], x["g"], k=50, solver=solver, initial=initial)
        np.testing.assert_allclose(scores, expected, atol=1e-5 * expected.max())


def test_lists_beyond_the_gallery_warn_once_each():
    with pytest.warns(UserWarning) as caught:
        diffusion(QUERY, GALLERY, k=50, k_query=45)
    assert [str(w.message).split(" is")[0] for w in caught] == ["k=50", "k_query=45"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha: expected a number of at least 0 and below 1, got 1.0"),
        ({"gamma": -1}, "gamma: expected a number of at least 0, got -1"),
        ({"iterations": -1}, "iterations: expected at least 0, got -1"),
        ({"solver": "lu"}, "solver: expected one of 'power', 'cg', got 'lu'"),
        ({"initial": "one"}, "initial: expected one of 'y', 'zero', got 'one'"),
        ({"solver": "cg", "iterations": 9}, "iterations and initial belong to"),
        ({"k_query": 0}, "k_query: expected at least 1"),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        diffusion(QUERY, GALLERY, **options)
