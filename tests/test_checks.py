"""Checks at the border: what passes, and what the error names."""

import os
from pathlib import Path

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


@checks.on_any_mesh
def _falling(x: jax.Array, more: tuple[jax.Array, ...] = ()) -> jax.Array:
    """Sorts and gathers, which axes of explicit type refuse along a split axis."""
    order = jnp.argsort(-x[:, 0])
    assert all(other is x for other in more)  # one array stays one array
    return x[order]


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
def test_functions_on_explicit_axes_keep_rows_on_the_callers_mesh(outer):
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Explicit,))
    rows = np.arange(16.0, dtype=np.float32).reshape(8, 2)
    split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("a")))
    result = outer(lambda x: _falling(x, (x,)) + x)(split)
    assert isinstance(result.sharding, NamedSharding)
    assert result.sharding.mesh == mesh
    assert {s.data.shape for s in result.addressable_shards} == {(1, 2)}
    np.testing.assert_array_equal(result, rows[::-1] + rows)


def test_functions_take_what_lies_nowhere_while_a_mesh_is_set():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        result = _falling(jnp.ones((3, 2))) + jnp.ones((3, 2))
    assert isinstance(result.sharding, NamedSharding)
    assert result.sharding.mesh == mesh


def test_ids_that_int32_cannot_hold_keep_their_equalities():
    ids = checks.check_ids(np.array([2**40, -5, 2**40]), "ids", size=3)
    assert ids.dtype == jnp.int32
    assert ids[0] == ids[2] != ids[1]
    query, gallery = checks.check_paired_ids(
        np.array([2**40]), np.array([1, 2**40], np.uint64), ("q", "g"), (1, 2)
    )
    assert query[0] == gallery[1] != gallery[0]


@pytest.mark.parametrize("where", ["numpy", "jax", "traced"])
@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (("uint32", "int32"), ([0, 2**32 - 1, 7, 2**31], [-1, 7, 0, -(2**31)])),
        (("uint32", "uint32"), ([2**32 - 1, 5, 2**31], [5, 2**31, 2**32 - 1])),
        (("uint64", "int64"), ([2**64 - 1, 2**32, 0, 7], [-1, 2**32, 0, 2**33, 7])),
        (("int64", "int64"), ([-1, -(2**63), 2**40], [2**40, -1, 2**40 + 2**32])),
        (("int64", "int8"), ([-1, -5, 300, 44], [-1, -5, 44])),
        (("uint64", "uint8"), ([2**64 - 1, 255], [255, 0])),
        (("uint8", "int8"), ([255, 1], [-1, 1])),
    ],
)
def test_integer_labels_keep_their_equalities(where, kinds, values):
    pair = [np.array(v, k) for v, k in zip(values, kinds, strict=True)]

    def read(query, gallery):
        return checks.check_paired_ids(query, gallery, ("q", "g"))

    wide = any("64" in kind for kind in kinds)
    with jax.enable_x64(wide and where != "numpy"):
        if where != "numpy":
            pair = [jnp.asarray(x) for x in pair]
        query, gallery = (jax.jit(read) if where == "traced" else read)(*pair)
    assert query.dtype == gallery.dtype == jnp.int32
    for found, given in ((query, values[0]), (gallery, values[1])):
        assert (np.asarray(found) == -1).tolist() == [v == -1 for v in given]
    expected = [[a == b for b in values[1]] for a in values[0]]
    found = np.asarray(query)[:, None] == np.asarray(gallery)
    np.testing.assert_array_equal(found, expected)


def test_text_of_any_kind_keeps_its_equalities():
    texts = ["b", "", "a", "-1", "b", "0", "-01"]
    for given in (
        texts,
        tuple(texts),
        np.array(texts),
        np.array(texts, object),
        np.array(texts, np.dtypes.StringDType()),
        [text.encode() for text in texts],
        np.array(texts).astype(bytes),
    ):
        ids = checks.check_ids(given, "ids", size=7)
        assert ids.tolist() == [0, -1, 1, -1, 0, 2, 3]
    assert checks.check_ids([b"\xff", b"\xfe", b"\xff"], "x", size=3).tolist() == [
        0,
        1,
        0,
    ]
    query, gallery = checks.check_paired_ids(["x"], [], ("q", "g"))
    assert (query.shape, gallery.shape) == ((1,), (0,))


def test_traced_classes_outside_become_one_class_too_many():
    def read(labels):
        return checks.check_classes(labels, "c", size=labels.shape[0], classes=300)

    with jax.enable_x64(True):
        labels = jnp.array([0, 299, 300, -1, 2**32, -(2**32)])
        assert jax.jit(read)(labels).tolist() == [0, 299, 300, 300, 300, 300]
    # 300 has no int8.
    assert jax.jit(read)(jnp.array([-1, 127], jnp.int8)).tolist() == [300, 127]


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
        (lambda: checks.check_count(2**31, "k"), "k: expected at most 2147483647, got"),
        (lambda: checks.check_count(2**40, "k"), "k: expected at most 2147483647, got"),
        (lambda: checks.check_count(None, "k"), "k: expected a whole number, got None"),
        (
            lambda: checks.check_count("k" * 999, "k"),
            "k: expected a whole number, got 'k{76}...$",
        ),
        (
            lambda: checks.check_masked_count(3, 2**40, "k"),
            "k_max: expected at most 2147483647",
        ),
        (
            lambda: checks.check_masked_count(2**40, None, "k"),
            "k: expected at most 2147483647",
        ),
        (lambda: checks.check_number("1", "a"), "a: expected a number, got '1'"),
        (
            lambda: checks.check_number(2, "a", least=0, most=1),
            "a: expected a number of at least 0 and at most 1, got 2",
        ),
        (lambda: checks.check_number(0, "a", above=0), "a: .* a number above 0, got 0"),
        (
            lambda: checks.check_number(-1e39, "a"),
            "a: .* got -1e.39, which float32 cannot hold",
        ),
        (
            lambda: checks.check_number(-np.inf, "a", most=np.inf),
            "a: expected a number, got -inf",
        ),
        (
            lambda: jax.jit(lambda a: checks.check_number(a, "a"))(jnp.ones(2)),
            "a: expected a number, got",
        ),
        (
            lambda: checks.check_classes([0, 2**32], "c", size=2, classes=3),
            r"c: expected values in 0 .. 2 for 3 classes, got 0 .. 4294967296",
        ),
        (
            lambda: checks.check_classes(["0"], "c", size=1, classes=3),
            "c: expected integers, got text",
        ),
        (
            lambda: checks.check_ids(["a"], "ids", size=1, text=False),
            "ids: expected integers, got text",
        ),
        (
            lambda: jax.jit(lambda q: checks.check_paired_ids(q, [2**40], ("q", "g")))(
                jnp.array([1])
            ),
            "g: holds values beyond int32 and stands beside traced labels",
        ),
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
    for one in (1, 1.0, np.float64(1), np.array(1), jnp.bfloat16(1), np.uint8(1)):
        checks.check_number(one, "a", least=1, most=1)
    checks.check_number(np.inf, "a", most=np.inf)
    assert checks.check_count(2**31 - 1, "k") == 2**31 - 1
    assert checks.check_count(2**64, "seed", most=None) == 2**64
    jax.jit(lambda a: checks.check_number(a, "a", least=9))(1.0)


def test_json_is_read_within_limits(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, 2.5, null, "\\u00e9\\ud83d\\ude97"]}')
    assert checks.read_json(file, "list") == {"a": [1, 2.5, None, "é\U0001f697"]}
    file.write_text("[" * 64 + "1" + "]" * 64)
    assert checks.read_json(file, "list", kind=list)
    file.write_text("[1]")
    assert checks.read_json(file, "list", kind=list, most=3) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value: line 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b"[" + b'{"a": ' * 64 + b"1" + b"}" * 64 + b"]", "nested more than 64 deep"),
        (b'["\xff"]', "'utf-8' codec can't decode byte 0xff"),
        (b'["a"]'.decode().encode("utf-16"), "'utf-8' codec can't decode"),
        (b'["\\uD800"]', "surrogates not allowed"),
        (b'[{"\\udfff": 1}]', "surrogates not allowed"),
        (b"[" + b"9" * 5000 + b"]", "4300 digits"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"[1, -Infinity]", "-Infinity is no number of JSON"),
        (b"[1e999]", "1e999 is too large a number"),
        (b'[{"a": 1, "a": 2}]', "'a' stands in it twice"),
        (b"{}", "expected a list, got dict"),
        (b"true", "expected a list, got bool"),
        (b"[" + b" " * 100_000 + b"]", "more than 100001 bytes"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: is no list of cars: .*{message}"):
        checks.read_json(file, "list of cars", kind=list, most=100_001)


def test_json_that_is_no_plain_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"b\.json: no such list"):
        checks.read_json(tmp_path / "b.json", "list")
    with pytest.raises(ValueError, match="is a folder, expected a list"):
        checks.read_json(tmp_path, "list")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe"):
        checks.read_json(tmp_path / "pipe", "list")
