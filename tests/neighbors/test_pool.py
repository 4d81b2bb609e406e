"""The lists of queries and gallery together, from the gallery's own or without."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax._checks import unit_rows
from dex_jax.neighbors import Neighbors, form
from dex_jax.neighbors._pool import pool_lists
from dex_jax.neighbors._search import self_search
from tests.neighbors.cases import (
    ROUNDING,
    best,
    check_lists,
    same,
    split,
    twins,
    unit64,
)
from tests.reference.k_reciprocal import neighbour_lists
from tests.rerank.cases import unit_signs

# Products are exact, or rows are equal bit by bit: programs may round as they like.
pytestmark = pytest.mark.usefixtures("quick_programs")

Q, G = 8, 48


def _pool(rows, queries, *, width, known=0, parts=0, padding=0):
    """The lists of a pool whose first rows are queries, here padded at their end."""
    units = unit_rows(jnp.asarray(rows))
    ahead = jnp.concatenate(
        [units[:queries], jnp.repeat(units[queries - 1 : queries], padding, axis=0)]
    )
    gallery = units[queries:]
    lists = None
    if parts:
        gallery = split(gallery, parts)
    if known:
        lists = self_search(gallery, k=min(max(known, width), gallery.shape[0]))
    number = jnp.int32(queries) if padding else None
    return pool_lists(ahead, gallery, lists, width=width, queries=number)


def _check(found, rows, queries, padding=0):
    """`check_lists`, and the minima; rows of padding stand in no list."""
    ids = np.asarray(found.ids)
    pool = np.r_[np.arange(queries), np.arange(queries + padding, len(ids))]
    assert np.isin(ids[pool], pool).all()
    # The numbers that the rows have without padding.
    short = np.searchsorted(pool, ids[pool])
    scores = np.asarray(found.scores)[pool]
    check_lists(Neighbors(jnp.asarray(short), jnp.asarray(scores)), rows, rows)
    minimum = (unit64(rows) @ unit64(rows).T).min(axis=1)
    np.testing.assert_allclose(
        np.asarray(found.minimum)[pool], minimum, rtol=0, atol=ROUNDING
    )


def _check_exact(width, known, parts, padding=0):
    rows = unit_signs(4, rows=Q + G)
    found = _pool(rows, Q, width=width, known=known, parts=parts, padding=padding)
    pool = np.r_[:Q, Q + padding : Q + padding + G]
    cosine = rows @ rows.T
    ids, scores = best(cosine, width)
    assert ids.tolist() == neighbour_lists(cosine, width)
    same(
        (np.asarray(found.ids)[pool], np.asarray(found.scores)[pool]),
        (pool[ids], scores),
    )
    np.testing.assert_array_equal(np.asarray(found.minimum)[pool], cosine.min(axis=1))
    assert found.ids.shape == (Q + padding + G, width)


@pytest.mark.parametrize(
    ("name", "width", "known", "padding", "parts"),
    [
        ("cpu", 1, 40, 0, 0),  # lists of the gallery that are longer
        ("wide", 1, 40, 0, 0),
        ("cpu", 13, 0, 5, 0),  # none
        ("wide", 13, 13, 5, 0),  # as long
        ("cpu", 56, 48, 5, 0),  # all rows
        ("wide", 56, 48, 5, 0),
        ("cpu", 56, 48, 5, 8),
        ("wide", 13, 0, 0, 8),
    ],
)
def test_a_pool_is_the_same_from_the_lists_of_the_gallery(
    name, width, known, padding, parts
):
    with form(name):
        _check_exact(width, known, parts, padding)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("width", "known", "padding", "parts"),
    [(13, 40, 5, 0), (56, 48, 0, 0), (13, 40, 5, 4)],
)
def test_a_pool_in_small_tiles(width, known, padding, parts):
    _check_exact(width, known, parts, padding)


@pytest.mark.usefixtures("rough_products")
@pytest.mark.parametrize("name", ["cpu", "wide"])
@pytest.mark.parametrize(
    ("known", "parts", "padding"), [(0, 0, 3), (20, 0, 0), (20, 0, 3), (20, 8, 3)]
)
def test_equal_rows_of_both_sides(known, parts, padding, name):
    with form(name):
        for distinct in (1, 4, 60):
            rows = twins(distinct, 29 + 80, distinct)
            found = _pool(rows, 29, width=13, known=known, parts=parts, padding=padding)
            _check(found, rows, 29, padding)


@pytest.mark.usefixtures("rough_products", "small_tiles")
@pytest.mark.parametrize(("known", "parts"), [(20, 0), (20, 2)])
def test_equal_rows_of_both_sides_in_small_tiles(known, parts):
    for distinct in (1, 4, 60):
        rows = twins(distinct, 29 + 80, distinct)
        found = _pool(rows, 29, width=13, known=known, parts=parts, padding=3)
        _check(found, rows, 29, 3)


@pytest.mark.parametrize("name", ["cpu", "wide"])
@given(
    seed=st.integers(0, 2**31),
    distinct=st.integers(1, 60),
    known=st.sampled_from([0, 20]),
)
@settings(max_examples=15, deadline=None)
def test_any_equal_rows(name, seed, distinct, known):
    rows = twins(seed, 29 + 80, distinct)
    with form(name):
        _check(_pool(rows, 29, width=13, known=known, padding=3), rows, 29, 3)


def test_padding_that_is_more_than_the_queries():
    # One query among 32 rows, and the wide form's selection in groups of columns.
    rows = twins(0, 1 + 80, 30)
    for name in ("cpu", "wide"):
        with form(name):
            for known in (0, 20):
                found = _pool(rows, 1, width=3, known=known, padding=63)
                _check(found, rows, 1, 63)


def test_one_query_and_one_row():
    found = pool_lists(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]]), None, width=2)
    assert found.ids.tolist() == [[0, 1], [1, 0]]
    assert found.scores.tolist() == [[1, 0], [1, 0]]
    assert found.minimum.tolist() == [0, 0]


def test_lists_of_the_gallery_stay_as_they_are_where_no_query_is_better():
    # Queries point away from everything, and from each other.
    gallery = np.abs(twins(0, 40, 40))
    units = unit_rows(jnp.asarray(gallery))
    own = self_search(units, k=9)
    found = pool_lists(-units[:2], units, own, width=9)
    np.testing.assert_array_equal(found.ids[2:], own.ids + 2)
    np.testing.assert_array_equal(found.scores[2:], own.scores)
    assert np.all(found.minimum[2:] < 0)
