"""Checks at the border: what passes, and what the error names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dex_jax import _checks as checks


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8"])
def test_rows_become_float32(dtype):
    rows = checks.check_rows(np.ones((2, 3)).astype(jnp.dtype(dtype)), "x")
    assert rows.dtype == jnp.float32


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(3), r"x: expected rows \[N, D\], got shape \(3,\)"),
        (np.ones((0, 3)), r"x: is empty, got shape \(0, 3\)"),
        (np.full((2, 2), "a"), "x: expected real numbers, got dtype <U1"),
        (np.ones((2, 2), complex), "x: expected real numbers, got dtype complex128"),
        (np.array([[1, 2], [np.nan, 0]]), "x: 1 row.* NaN or infinity, first row 1"),
        (np.array([[np.inf, 2], [1, 0]]), "x: 1 row.* NaN or infinity, first row 0"),
        (np.array([[1, 2], [0, 0]]), "x: 1 row.* all zero .* first row 1"),
    ],
)
def test_rows_that_cannot_be_ranked(rows, message):
    with pytest.raises(ValueError, match=message):
        checks.check_rows(rows, "x")


def test_values_are_not_looked_at_under_tracing():
    zeros = jax.jit(lambda x: checks.check_rows(x, "x"))(jnp.zeros((2, 2)))
    np.testing.assert_array_equal(zeros, 0)
    with pytest.raises(ValueError, match="x: expected rows"):
        jax.jit(lambda x: checks.check_rows(x, "x"))(jnp.zeros(2))


def test_rows_on_explicit_axes_keep_their_place():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Explicit,))
    split = jax.device_put(np.ones((8, 2)), NamedSharding(mesh, PartitionSpec("a")))
    rows = checks.check_rows(split, "x")
    assert {s.data.shape for s in rows.addressable_shards} == {(1, 2)}
    assert (rows @ rows.T).shape == (8, 8)


def test_ids_that_int32_cannot_hold_keep_their_equalities():
    ids = checks.check_ids(np.array([2**40, -5, 2**40]), "ids", size=3)
    assert ids.dtype == jnp.int32
    assert ids[0] == ids[2] != ids[1]
    query, gallery = checks.check_paired_ids(
        np.array([2**40]), np.array([1, 2**40], np.uint64), ("q", "g"), (1, 2)
    )
    assert query[0] == gallery[1] != gallery[0]


def test_unit_rows_neither_overflow_nor_vanish():
    rows = jnp.array([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0]])
    found = checks.unit_rows(rows)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-10, 1e-9, 1.0, 1e18, 1e19, 3e38])
def test_a_unit_row_does_not_hang_on_its_length_or_on_other_rows(size):
    rows = np.random.default_rng(0).uniform(-1, 1, size=(5, 64)).astype(np.float32)
    plain = checks.unit_rows(jnp.asarray(rows))
    np.testing.assert_allclose(jnp.linalg.norm(plain, axis=1), 1, rtol=1e-6)
    rows[2] *= np.float32(size)
    found = checks.unit_rows(jnp.asarray(rows))
    np.testing.assert_allclose(found[2], plain[2], atol=1e-7)
    others = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(found[others], plain[others])


def test_a_row_that_is_not_finite_spoils_no_other():
    rows = jnp.array([[3.0, 4.0], [jnp.nan, 1.0], [jnp.inf, 1.0]])
    found = checks.unit_rows(rows)
    np.testing.assert_array_equal(found[0], checks.unit_rows(rows[:1])[0])
    assert np.isnan(found[1:]).any(axis=1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: checks.check_ids([1, 2], "ids", size=3),
            r"ids: expected shape \(3,\)",
        ),
        (lambda: checks.check_ids([1.0], "ids", size=1), "ids: expected integers"),
        (lambda: checks.check_count(True, "k"), "k: expected a whole number, got True"),
        (lambda: checks.check_count(0, "k"), "k: expected at least 1, got 0"),
        (
            lambda: checks.check_masked_count(3, 2, "k"),
            "k: expected at most k_max=2, got 3",
        ),
        (lambda: checks.check_masked_count(3, 0, "k"), "k_max: expected at least 1"),
        (lambda: checks.check_masked_count(1.0, 2, "k"), "k: expected a whole number"),
        (
            lambda: jax.jit(lambda k: checks.check_masked_count(k, None, "k"))(1),
            "k: sets a shape and is traced; give k_max",
        ),
        (lambda: checks.check_choice("c", "w", ("a", "b")), "w: .* 'a', 'b', got 'c'"),
        (lambda: checks.check_number("1", "a"), "a: expected a number, got '1'"),
        (lambda: checks.check_number([1.0], "a"), "a: expected a number, got"),
        (lambda: checks.check_number(np.nan, "a"), "a: expected a number, got nan"),
        (
            lambda: checks.check_number(1, "a", least=0, below=1),
            "a: expected a number of at least 0 and below 1, got 1",
        ),
        (
            lambda: checks.check_same_width(np.ones((1, 2)), np.ones((1, 3)), "a", "b"),
            "a has dimension 2 and b has 3",
        ),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_right_passes():
    assert checks.check_count(np.int64(3), "k") == 3
    assert checks.check_masked_count(3, None, "k") == (3, None)
    for three in (3, np.int64(3), jnp.int32(3), np.array(3)):
        assert checks.check_masked_count(three, 9, "k") == (9, 3)
    assert checks.check_choice("a", "w", ("a", "b")) == "a"
    checks.check_number(jnp.float32(0.5), "a", least=0, below=1)
    jax.jit(lambda a: checks.check_number(a, "a", least=9))(1.0)
