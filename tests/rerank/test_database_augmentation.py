"""DBA against hand arithmetic, loops and reference vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.neighbors import Neighbors
from dex_jax.rerank import database_augmentation
from dex_jax.rerank._database_augmentation import augment
from tests.reference import expansion as reference
from tests.rerank.cases import G, clusters, temporary_bytes

GALLERY = clusters()[1]


@pytest.mark.quick
def test_by_hand():
    # Each image and its one nearest other; (0, 2) counts as (0, 1).
    gallery = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 2.0]])
    expected = [[1.8, 0.6], [1.8, 0.6], [0.8, 1.6]]
    expected = np.array(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    found = database_augmentation(gallery, k=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("k", [1, 9, G - 1])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("include_self", ["plus", "top_k"])
def test_agrees_with_the_equation(k, alpha, include_self):
    found = database_augmentation(GALLERY, k=k, alpha=alpha, include_self=include_self)
    expected = reference.database_augmentation(
        GALLERY, k, alpha, include_self == "top_k"
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.quick
def test_equal_sets_of_neighbours_give_equal_bits():
    # Two far groups of five: with k = 4 each image sums its whole group.
    rng = np.random.default_rng(0)
    gallery = np.repeat(np.eye(8)[:2], 5, axis=0) + 0.1 * rng.normal(size=(10, 8))
    found = np.asarray(database_augmentation(gallery, k=4))
    assert len(np.unique(found, axis=0)) == 2


@pytest.mark.quick
def test_a_list_full_of_duplicates_still_holds_the_image():
    # Five equal rows: the lists of three hold rows 0 to 2 alone.
    rows = jnp.tile(jnp.array([[0.6, 0.8]]), (5, 1)).at[4].set(jnp.array([1.0, 0.0]))
    lists = Neighbors(jnp.tile(jnp.arange(3), (5, 1)), jnp.ones((5, 3)))
    found = augment(rows, lists, alpha=0.0, include_self="plus")
    total = 2 * rows[0] + rows[4]
    np.testing.assert_allclose(found[4], total / jnp.linalg.norm(total), atol=1e-6)


def test_same_inside_the_callers_jit_and_vmap():
    alphas = jnp.array([0.0, 2.0])
    sweep = jax.jit(jax.vmap(lambda a: database_augmentation(GALLERY, k=9, alpha=a)))
    for alpha, found in zip(alphas, sweep(alphas), strict=True):
        plain = database_augmentation(GALLERY, k=9, alpha=alpha)
        np.testing.assert_allclose(found, plain, atol=1e-6)


def test_k_beyond_the_others_warns_once():
    with pytest.warns(UserWarning, match="k=40 is more than the 39") as caught:
        found = database_augmentation(GALLERY, k=40)
    assert len(caught) == 1
    np.testing.assert_array_equal(found, database_augmentation(GALLERY, k=39))
    with pytest.warns(UserWarning, match="k=10 is more than the 0"):
        single = database_augmentation(np.array([[3.0, 4.0]]))
    np.testing.assert_allclose(single, [[0.6, 0.8]], atol=1e-6)


def test_memory_never_holds_all_neighbours():
    rows = jnp.zeros((4096, 64))
    lists = Neighbors(jnp.zeros((4096, 20), jnp.int32), jnp.zeros((4096, 20)))
    lowered = augment.lower(rows, lists, alpha=0.0, include_self="top_k")
    all_neighbours = 4 * 4096 * 20 * 64
    assert temporary_bytes(lowered) < all_neighbours / 4


@pytest.mark.parametrize("case", ["a", "b"])
def test_reference_vectors(golden, case):
    x = np.load(golden / "rerank" / f"{case}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{case}_qe.npz")
    for alpha in (0, 2):
        found = database_augmentation(x["g"], k=10, alpha=alpha)
        expected = vectors[f"dba_selfplus_a{alpha}_k10"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        found = database_augmentation(x["g"], k=10, alpha=alpha, include_self="top_k")
        expected = np.load(golden / "rerank" / f"{case}_chain.npz")[f"dba_a{alpha}_g"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: expected at least 1"),
        ({"alpha": np.nan}, "alpha: expected a number of at least 0, got nan"),
        ({"include_self": True}, "include_self: expected one of 'plus', 'top_k'"),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        database_augmentation(GALLERY, **options)
