"""Derivatives of searches and expansions against hand values and finite differences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax._checks import unit_rows
from dex_jax.neighbors import form, nearest_neighbors
from dex_jax.neighbors._derivative import with_derivative
from dex_jax.neighbors._search import search
from dex_jax.neighbors._units import unit_pair, unit_set
from dex_jax.rerank import (
    alpha_query_expansion,
    average_query_expansion,
    database_augmentation,
    tracklet_means,
    tracklet_pull_in,
    tracklet_query_expansion,
)
from dex_jax.rerank._query_expansion import clipped_power
from tests.reference import expansion as reference
from tests.rerank.cases import clusters, temporary_bytes

pytestmark = pytest.mark.usefixtures("quick_programs")

QUERY, GALLERY, TRACKS = clusters()
ALPHAS = (0.0, 0.5, 1.0, 2.0, 3.0)
WEIGHTS = np.random.default_rng(3).normal(size=(40, 8))


def slope(
    function: Callable[..., Any], at: list[np.ndarray], move: list[np.ndarray]
) -> float:
    """The central difference of a function of float64 arrays along a direction."""
    step = 1e-6

    def value(sign: int) -> float:
        moved = zip(at, move, strict=True)
        return float(function(*(x + sign * step * v for x, v in moved)))

    return (value(1) - value(-1)) / (2 * step)


def agrees(
    ours: Callable[..., Any], theirs: Callable[..., Any], *at: np.ndarray
) -> None:
    """Compares gradients of a sum with weights, in two random directions."""
    rng = np.random.default_rng(7)

    def loss(function: Callable[..., Any], xp: Any) -> Callable[..., Any]:
        return lambda *x: xp.sum(function(*x) * WEIGHTS[: len(at[0]), : at[0].shape[1]])

    numbers = tuple(range(len(at)))
    grads = jax.jit(jax.grad(loss(ours, jnp), numbers))(*map(jnp.float32, at))
    for _ in range(2):
        move = [rng.normal(size=np.shape(x)) for x in at]
        found = sum(np.sum(np.asarray(g) * v) for g, v in zip(grads, move, strict=True))
        given = [np.asarray(x, np.float64) for x in at]
        expected = slope(loss(theirs, np), given, move)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_opposite_image_by_hand():
    # The image's weight is clipped: q' = q / |q|, of which d q'_1 / d q = (0, 1) at
    # q = (1, 0), and the image has no part in it.
    query, gallery = jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.2]])

    def expanded(query, gallery, alpha):
        return alpha_query_expansion(query, gallery, k=1, alpha=alpha)[0, 1]

    for alpha in ALPHAS[1:]:
        for wrap in (lambda f: f, jax.jit):
            found = wrap(jax.grad(expanded, (0, 1, 2)))(query, gallery, alpha)
            np.testing.assert_allclose(found[0], [[0, 1]], atol=1e-7)
            np.testing.assert_array_equal(found[1], 0)
            np.testing.assert_array_equal(found[2], 0)
    # At alpha 0 it counts whole: q' = l2(q + g) with unit g.
    agrees(
        lambda q, g: alpha_query_expansion(q, g, k=1, alpha=0),
        lambda q, g: reference.alpha_query_expansion(q, g, 1, 0),
        np.asarray(query),
        np.asarray(gallery),
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_powers_of_cosines_have_finite_slopes(alpha):
    cosine = jnp.array([-jnp.inf, -1, -0.3, 0, 1e-12, 0.25, 1], jnp.float32)
    value = clipped_power(cosine, alpha)
    expected = [0, *[float(alpha == 0)] * 3, *(np.float64(cosine[4:]) ** alpha)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    above = np.float64(cosine[4:])
    in_cosine = [0, 0, 0, 0, *(alpha * above ** (alpha - 1))]
    in_alpha = [0, 0, 0, 0, *(above**alpha * np.log(above))]
    total = jax.grad(lambda c, a: clipped_power(c, a).sum(), (0, 1))
    for wrap in (lambda f: f, jax.jit):
        found = wrap(total)(cosine, jnp.float32(alpha))
        np.testing.assert_allclose(found[0], in_cosine, rtol=1e-5)
        np.testing.assert_allclose(found[1], sum(in_alpha), rtol=1e-5, atol=1e-6)
    each = jax.jacfwd(clipped_power, 1)(cosine, jnp.float32(alpha))
    np.testing.assert_allclose(each, in_alpha, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "alpha"), [("cpu", 0), ("cpu", 0.5), ("wide", 2)])
def test_expansions_agree_with_finite_differences(name, alpha):
    with form(name):
        agrees(
            lambda q, g: alpha_query_expansion(q, g, k=9, alpha=alpha),
            lambda q, g: reference.alpha_query_expansion(q, g, 9, alpha),
            QUERY,
            GALLERY,
        )
        agrees(
            lambda q, g: tracklet_query_expansion(
                q, g, TRACKS, k=9, alpha=alpha, within="similarity"
            ),
            lambda q, g: reference.tracklet_query_expansion(
                q, g, TRACKS, 9, alpha, "similarity"
            ),
            QUERY,
            GALLERY,
        )
        for include, top_k in (("plus", False), ("top_k", True)):
            agrees(
                lambda g, include=include: database_augmentation(
                    g, k=9, alpha=alpha, include_self=include
                ),
                lambda g, top_k=top_k: reference.database_augmentation(
                    g, 9, alpha, top_k
                ),
                GALLERY,
            )


def test_the_power_has_its_slope_traced_and_under_vmap():
    agrees(
        lambda q, a: alpha_query_expansion(q, GALLERY, k=9, alpha=a),
        lambda q, a: reference.alpha_query_expansion(q, GALLERY, 9, a),
        QUERY,
        np.array(1.7),
    )

    def loss(alpha):
        return jnp.sum(database_augmentation(GALLERY, k=9, alpha=alpha) * WEIGHTS)

    alphas = jnp.array([0.0, 0.5, 2.0])
    found = jax.jit(jax.vmap(jax.grad(loss)))(alphas)
    alone = [jax.grad(loss)(alpha) for alpha in alphas]
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "scaled",
    [
        unit_rows,
        unit_set,
        lambda x: unit_pair(x[:2], x[2:], jnp.int32(2))[1],
    ],
)
def test_lengths_of_any_size_have_finite_slopes(scaled):
    sizes = [1, 1, 1, 1e-30, 1e30, 1e19, 1e-10, 3e37]
    rows = np.array([[s, 2 * s, -s] for s in sizes], np.float32)
    move = np.array([1.0, -3.0, 0.5])
    exact = rows.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    unit = exact / length
    expected = (move - unit * (unit @ move)[:, None]) / length
    expected, unit = expected[-len(scaled(rows)) :], unit[-len(scaled(rows)) :]
    np.testing.assert_allclose(scaled(rows), unit, rtol=1e-6)
    found = jax.grad(lambda x: jnp.sum(scaled(x) @ jnp.float32(move)))(rows)
    found = found[-len(expected) :]
    # XLA flushes what is below 1.2e-38 to zero.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-38)
    # The move of a row of size s by s changes its direction as much as any other's.
    moved = jax.jvp(scaled, (rows,), (np.float32(move) * rows[:, :1],))[1]
    np.testing.assert_allclose(
        moved[-len(expected) :], np.tile(moved[-1], (len(expected), 1)), atol=1e-6
    )


def test_rows_of_zeros_stay_zero_and_do_not_move():
    rows = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    for scaled in (unit_rows, unit_set):
        np.testing.assert_array_equal(scaled(rows)[::2], 0)
        found = jax.grad(lambda x, scaled=scaled: jnp.sum(scaled(x)))(rows)
        np.testing.assert_array_equal(found[::2], 0)
        np.testing.assert_allclose(found[1], [0.032, -0.024], rtol=1e-5)
    # The mean of a tracklet whose images cancel.
    images = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    found = jax.grad(lambda g: jnp.sum(tracklet_means(g, [4, 4, 9])))(images)
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [0.5, 0]], atol=1e-7)
    # A query that its only neighbour cancels.
    query, opposite = jnp.array([[1.0, 0.0]]), jnp.array([[-1.0, 0.0]])
    found = jax.grad(lambda q: jnp.sum(average_query_expansion(q, opposite, k=1)))
    np.testing.assert_array_equal(found(query), 0)


def _pairs(queries, database, ids):
    queries = queries / jnp.linalg.norm(queries, axis=1, keepdims=True)
    database = database / jnp.linalg.norm(database, axis=1, keepdims=True)
    return jnp.einsum("md,mkd->mk", queries, database[ids])


@pytest.mark.parametrize("name", ["cpu", "wide"])
def test_scores_of_a_search_move_with_both_of_their_rows(name):
    with form(name):

        def cubes(q, g):
            return jnp.sum(nearest_neighbors(q, g, k=7).scores ** 3)

        ids = nearest_neighbors(QUERY, GALLERY, k=7).ids
        expected = jax.grad(lambda q, g: jnp.sum(_pairs(q, g, ids) ** 3), (0, 1))
        expected = expected(QUERY, GALLERY)
        for function in (
            jax.jit(jax.grad(cubes, (0, 1))),
            jax.grad(jax.jit(cubes), (0, 1)),
            jax.jit(jax.jacfwd(cubes, (0, 1))),
        ):
            for a, b in zip(function(QUERY, GALLERY), expected, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
        itself = nearest_neighbors(GALLERY, GALLERY, k=7, exclude_self=True)
        found = jax.grad(
            lambda g: jnp.sum(nearest_neighbors(g, g, k=7, exclude_self=True).scores)
        )(GALLERY)
        expected = jax.grad(lambda g: jnp.sum(_pairs(g, g, itself.ids)))(GALLERY)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_second_derivatives_of_a_search():
    def cubes(g):
        return jnp.sum(nearest_neighbors(QUERY, g, k=3).scores ** 3)

    ids = nearest_neighbors(QUERY, GALLERY, k=3).ids
    move = jnp.ones_like(GALLERY)

    def second(function):
        return jax.jvp(jax.grad(function), (jnp.asarray(GALLERY),), (move,))[1]

    expected = second(lambda g: jnp.sum(_pairs(QUERY, g, ids) ** 3))
    np.testing.assert_allclose(second(cubes), expected, atol=1e-4)


def test_sets_that_are_searched_in_tiles():
    # Above 2^23 cosines the form of CPUs loops as long as data ask for.
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(3000, 4)).astype(np.float32)
    others = rows[::-1] + np.float32(0.1)

    def loss(x):
        found = nearest_neighbors(x, others, k=3), nearest_neighbors(x, x, k=4)
        return sum(jnp.sum(f.scores**2) for f in found), found

    moved, (apart, itself) = jax.jit(jax.grad(loss, has_aux=True))(rows)

    def pairs(x):
        squares = _pairs(x, others, apart.ids) ** 2, _pairs(x, x, itself.ids) ** 2
        return sum(map(jnp.sum, squares))

    np.testing.assert_allclose(moved, jax.grad(pairs)(rows), atol=1e-5)


def test_empty_entries_do_not_move():
    rows = jnp.eye(3)
    valid = jnp.array([True, False, False])

    def finite(rows):
        scores = search(rows, rows, k=2, valid=valid).scores
        return jnp.sum(jnp.where(scores > -jnp.inf, scores, 0))

    assert np.isfinite(jax.grad(finite)(rows)).all()
    scores = jnp.array([[0.5, -jnp.inf]])
    ids = jnp.zeros((1, 2), jnp.int32)
    moved = jax.jvp(
        lambda g: with_derivative(scores, ids, rows[:1], g), (rows,), (rows,)
    )[1]
    np.testing.assert_array_equal(moved, [[1, 0]])


def test_the_backward_pass_keeps_no_list_of_rows():
    rows = jnp.ones((1500, 256))

    def memory(k):
        def total(g):
            return jnp.sum(database_augmentation(g, k=k, alpha=2.0))

        return temporary_bytes(jax.jit(jax.grad(total)).lower(rows))

    # 20 entries more of [N, D] each would be 20 times the rows.
    assert memory(24) - memory(4) < 2 * 4 * rows.size


def test_pulled_in_scores_move_with_the_best_of_their_tracklet():
    scores = jnp.array([[0.1, 0.5, 0.9, 0.2], [0.3, -jnp.inf, 0.3, -jnp.inf]])
    found = jax.grad(
        lambda s: jnp.sum(
            jnp.where(s > -jnp.inf, tracklet_pull_in(s, [8, 5, 8, 5]), 0)
            * jnp.array([[1.0, 2, 4, 8]])
        )
    )(scores)
    np.testing.assert_array_equal(found[0], [0, 10, 5, 0])
    assert np.isfinite(found).all()


def test_shares_of_a_mean_have_a_derivative():
    """Two images at right angles: the direction of (w, v) turns by v / (w^2 + v^2)."""
    images, tracks = jnp.eye(2), [3, 3]

    def first_entry(weights: jax.Array) -> jax.Array:
        return tracklet_means(images, tracks, weights=weights)[0, 0]

    found = jax.grad(first_entry)(jnp.array([3.0, 4.0]))
    # cos = w / sqrt(w^2 + v^2): v^2 / 125 and -w v / 125.
    np.testing.assert_allclose(found, [16 / 125, -12 / 125], atol=1e-6)
