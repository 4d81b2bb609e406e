"""Derivatives of diffusion and of k-reciprocal scores, against dense arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import Neighbors, form
from dex_jax.rerank import (
    Embeddings,
    diffusion,
    k_reciprocal,
    parse,
    tracklet_k_reciprocal,
)
from dex_jax.rerank._diffusion_graph import edge_weights
from tests.reference import diffusion as reference
from tests.rerank.cases import clusters, temporary_bytes

pytestmark = pytest.mark.usefixtures("quick_programs")

QUERY, GALLERY, TRACKS = clusters()
LISTS: dict[str, Any] = {"k": 9, "k_query": 7}
WEIGHTS = np.random.default_rng(3).normal(size=(6, 40)).astype(np.float32)
AT = (jnp.asarray(QUERY), jnp.asarray(GALLERY), jnp.float32(0.9), jnp.float32(2))
ALL = (0, 1, 2, 3)


def _first(cosine, k):
    ids = jax.lax.top_k(jax.lax.stop_gradient(cosine), k)[1]
    rows = jnp.arange(len(cosine))[:, None]
    return jnp.zeros(cosine.shape, bool).at[rows, ids].set(True)


def _power(cosine, there, gamma):
    there = there & (cosine > 0)
    return jnp.where(there, jnp.where(there, cosine, 1) ** gamma, 0)


def dense(query, gallery, alpha, gamma, iterations=5, solver="power"):
    """Eq. 9-10 by dense matrices."""
    query = query / jnp.linalg.norm(query, axis=1, keepdims=True)
    gallery = gallery / jnp.linalg.norm(gallery, axis=1, keepdims=True)
    cosine = gallery @ gallery.T
    near = _first(cosine, 9)
    eye = jnp.eye(len(gallery), dtype=bool)
    A = _power(cosine, near & near.T & ~eye, gamma)
    degree = A.sum(axis=1)
    scale = jnp.where(degree > 0, jnp.where(degree > 0, degree, 1) ** -0.5, 0)
    S = A * scale[:, None] * scale[None]
    start = query @ gallery.T
    y = _power(start, _first(start, 7), gamma)
    if solver == "cg":
        return (1 - alpha) * jnp.linalg.solve(jnp.eye(len(S)) - alpha * S, y.T).T
    f = y
    for _ in range(iterations):
        f = alpha * f @ S + (1 - alpha) * y
    return f


def expected(function=lambda scores: scores * WEIGHTS, **options):
    """Gradients in float64."""
    with jax.enable_x64(True):
        at = [jnp.asarray(np.asarray(x), jnp.float64) for x in AT]
        return jax.grad(lambda *x: jnp.sum(function(dense(*x, **options))), ALL)(*at)


def loss(query, gallery, alpha, gamma, **options):
    steps = {} if options.get("solver") == "cg" else {"iterations": 5}
    given: dict[str, Any] = {**LISTS, **steps, **options}
    scores = diffusion(query, gallery, alpha=alpha, gamma=gamma, **given)
    return jnp.sum(scores * WEIGHTS)


def agree(found, exact, tolerance=1e-5):
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


def test_two_joined_images_by_hand():
    # One step over one edge of weight 1: scores (1 - alpha, alpha, 0).
    gallery = jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.1]])
    query = jnp.array([[2.0, 0.0]])

    def scores(alpha, **options):
        return diffusion(query, gallery, k=2, k_query=1, alpha=alpha, **options)[0]

    found = jax.jacrev(lambda a: scores(a, iterations=1))(0.95)
    np.testing.assert_allclose(found, [-1, 1, 0], atol=1e-6)
    # Converged: (1, alpha) / (1 + alpha).
    found = jax.jacrev(lambda a: scores(a, solver="cg"))(0.5)
    np.testing.assert_allclose(found, [-1 / 2.25, 1 / 2.25, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cpu", {}),
        ("cpu", {"remat": True}),
        ("cpu", {"solver": "cg"}),
        ("wide", {}),
        ("wide", {"solver": "cg"}),
    ],
    ids=str,
)
def test_reverse_mode_agrees_with_dense_arithmetic(name, options):
    exact = expected(**{k: v for k, v in options.items() if k == "solver"})
    with form(name):
        found = jax.jit(jax.grad(lambda *x: loss(*x, **options), ALL))(*AT)
        agree(found, exact)
        if name == "cpu" and not options:
            agree(jax.grad(jax.jit(loss), ALL)(*AT), exact)


def test_reverse_mode_agrees_with_finite_differences():
    def value(query, gallery, alpha, gamma):
        links = reference.graph(gallery, 9, gamma)
        start = reference.start(query, gallery, 7, gamma)
        return np.sum(reference.power(links, start, alpha, 5, "zero") * WEIGHTS)

    rng = np.random.default_rng(5)
    at = [np.asarray(x, np.float64) for x in AT]
    move = [rng.normal(size=x.shape) for x in at]
    grads = jax.jit(jax.grad(lambda *x: loss(*x, initial="zero"), ALL))(*AT)
    for i in ALL:
        ends = []
        for step in (1e-5, -1e-5):
            moved = [*at]
            moved[i] = at[i] + step * move[i]
            ends.append(value(*moved))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(
            np.sum(grads[i] * move[i]), slope, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("options", [{}, {"solver": "cg"}], ids=str)
def test_forward_mode_and_a_sweep_of_gradients(options):
    exact = expected(**options)
    found = jax.jit(jax.jacfwd(lambda *x: loss(*AT[:2], *x, **options), (0, 1)))
    agree(found(*AT[2:]), exact[2:])

    def one(alpha, gamma):
        return jax.grad(lambda *x: loss(*x, **options), ALL)(*AT[:2], alpha, gamma)

    alphas, gammas = jnp.array([0.5, 0.9]), jnp.array([3.0, 2.0])
    swept = jax.jit(jax.vmap(one))(alphas, gammas)
    agree([x[1] for x in swept], exact)


def test_second_derivatives_forward_over_reverse():
    move = tuple(map(jnp.ones_like, AT))

    def second(function):
        return jax.jvp(jax.grad(function, ALL), AT, move)[1]

    exact = second(lambda *x: jnp.sum(dense(*x) * WEIGHTS))
    agree(jax.jit(lambda: second(loss))(), exact, 1e-4)


def test_many_blocks_of_queries_and_padding():
    # 70 queries are padded to 128: five blocks of the CPU's form.
    many = np.tile(QUERY, (12, 1))[:70]
    order = np.arange(64, 70) % 6

    def total(gallery, alpha):
        scores = diffusion(many, gallery, alpha=alpha, gamma=2, iterations=5, **LISTS)
        return jnp.sum(scores[64:] * WEIGHTS[order])

    exact = expected()
    agree(jax.jit(jax.grad(total, (0, 1)))(*AT[1:3]), exact[1:3])
    # A gradient in `alpha` alone leaves the embeddings concrete.
    found = jax.grad(total, 1)(GALLERY, AT[2])
    np.testing.assert_allclose(found, exact[2], rtol=1e-5)


def test_rematerialisation_keeps_one_block():
    query, gallery = jnp.ones((256, 8)), jnp.ones((2000, 8))

    def memory(remat):
        def total(g):
            return jnp.sum(diffusion(query, g, k=8, k_query=4, remat=remat))

        return temporary_bytes(jax.jit(jax.grad(total)).lower(gallery))

    step = 4 * 256 * 2000  # bytes of f for all queries
    assert memory(False) > 25 * step
    # Eight blocks of 32 queries.
    assert memory(True) < 15 * step


def test_tiny_weights_and_lonely_images_have_finite_slopes():
    # Two images, each the other's only edge: S_01 = 1 whatever the weight.
    ids = jnp.array([[0, 1], [1, 0]], jnp.int32)
    linked = jnp.array([[False, True], [False, True]])
    for cosine in (1e-12, 1e-9, 0.5, 1.0):
        scores = jnp.array([[1, cosine]] * 2, jnp.float32)
        for gamma in (0.0, 0.5, 1.0, 3.0):

            def weights(scores, gamma):
                return edge_weights(Neighbors(ids, scores), linked, gamma)

            moved = jax.jacrev(weights, (0, 1))(scores, jnp.float32(gamma))
            for x in moved:
                assert np.isfinite(x).all()
            np.testing.assert_allclose(moved[1], 0, atol=1e-6)
    # No edges at all, cosines of 0 and below.
    gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    for gamma in (0.0, 0.5, 1.0, 3.0):
        found = jax.grad(
            lambda q, g, gamma: jnp.sum(
                diffusion(q, g, k=3, k_query=3, gamma=gamma, iterations=2)
            ),
            (0, 1, 2),
        )(gallery[:1], gallery, jnp.float32(gamma))
        assert all(np.isfinite(x).all() for x in found)


def test_the_best_of_a_chain():
    chain = parse("diffusion(k=9,k_query=7,alpha=0.9,gamma=2,iterations=5)")

    def best(query, gallery):
        return jnp.sum(chain(Embeddings(query, gallery), top=3).scores)

    exact = expected(lambda scores: jax.lax.top_k(scores, 3)[0])
    agree(jax.jit(jax.grad(best, (0, 1)))(*AT[:2]), exact[:2])


def test_the_same_in_64_bit_mode():
    plain = jax.jit(jax.grad(loss, ALL))(*AT)
    with jax.enable_x64(True):
        wide = jax.jit(jax.grad(loss, ALL))(*AT)
    for a, b in zip(plain, wide, strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_remat_is_a_bool():
    wrong: Any = 1
    with pytest.raises(ValueError, match="remat: expected True or False, got 1"):
        diffusion(QUERY, GALLERY, remat=wrong)


STEPS = {
    "k_reciprocal": lambda q, g, w: k_reciprocal(q, g, k1=8, k2=3, lambda_=w),
    "tracklets": lambda q, g, w: tracklet_k_reciprocal(
        q, g, TRACKS, k1=4, k2=2, lambda_=w
    ),
}


@pytest.mark.parametrize(
    ("name", "step"), [("cpu", "tracklets"), ("wide", "k_reciprocal")]
)
def test_k_reciprocal_moves_with_lambda_and_refuses_embeddings(name, step):
    def total(query, gallery, lambda_):
        return jnp.sum(STEPS[step](query, gallery, lambda_) * WEIGHTS)

    with form(name):
        # Scores are linear in lambda_.
        slope = (total(QUERY, GALLERY, 0.75) - total(QUERY, GALLERY, 0.25)) / 0.5
        found = jax.grad(total, 2)(QUERY, GALLERY, 0.5)
        np.testing.assert_allclose(found, slope, rtol=1e-4)
        for i, derivative in enumerate((jax.grad, jax.jacfwd)):
            with pytest.raises(ValueError, match=r"lambda_ can\. Take cosine_sim"):
                derivative(total, i)(QUERY, GALLERY, 0.5)


def test_k_reciprocal_in_programs():
    def total(query, lambda_):
        return jnp.sum(STEPS["k_reciprocal"](query, GALLERY, lambda_) * WEIGHTS)

    slopes = jax.jit(jax.vmap(jax.grad(total, 1), (None, 0)))
    found = slopes(QUERY, jnp.array([0.1, 0.9]))
    slope = (total(QUERY, 0.75) - total(QUERY, 0.25)) / 0.5
    np.testing.assert_allclose(found, slope, rtol=1e-4)
    for refused in (jax.jit(jax.grad(total)), jax.grad(jax.jit(total))):
        with pytest.raises(ValueError, match="query, gallery: k_reciprocal cannot"):
            refused(QUERY, 0.5)
    # What a chain computes from embeddings is refused too; what was cut off is not.
    chain = parse("dba(k=3),k_reciprocal(k1=8,k2=3)")
    with pytest.raises(ValueError, match="query, gallery: k_reciprocal cannot"):
        jax.grad(lambda g: jnp.sum(chain(Embeddings(QUERY, g))))(GALLERY)
    found = jax.grad(lambda q: total(jax.lax.stop_gradient(q), 0.5))(QUERY)
    np.testing.assert_array_equal(found, 0)
