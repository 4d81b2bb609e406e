"""Metrics and selection for labels and scores of every type, against float64."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax.metrics import evaluate
from dex_jax.rerank import Ranking, top_k

Q, G = 5, 40
# Three values that float32 makes one, in the order 1, 0, 2 of falling scores.
CLOSE = {
    "float64": np.array([[1.0, 1 + 1e-9, 1 - 1e-9]]),
    "offset": np.array([[1e6, 1e6 + 1e-3, 1e6 - 1e-3]]),
    "huge": np.array([[1e300, 2e300, -1e300]]),
    "tiny": np.array([[1e-300, 2e-300, 0.0]]),
    "infinite": np.array([[1e300, np.inf, -np.inf]]),
    "masked": np.array([[-1e300, 0.0, -np.inf]]),
    "int64": np.array([[2**60, 2**60 + 1, -(2**63)]]),
    "int32": np.array([[2**30, 2**30 + 1, -(2**31)]], np.int32),
    "uint64": np.array([[2**64 - 2, 2**64 - 1, 0]], np.uint64),
    "longdouble": np.array([[1.0, 1 + 1e-9, 1 - 1e-9]], np.longdouble),
    "float32": np.array([[1e-40, 2e-40, 0]], np.float32),
    "lowest": np.array([[np.finfo(np.float32).min, 0, -np.inf]], np.float32),
    "float16": np.array([[1.0, 2.0, -np.inf]], np.float16),
    "int8": np.array([[0, 127, -128]], np.int8),
}


def _labels(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "query_identities": rng.integers(-1, 6, Q),
        "gallery_identities": rng.integers(-1, 6, G),
        "query_cameras": rng.integers(-1, 3, Q),
        "gallery_cameras": rng.integers(-1, 3, G),
    }


def _same(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of values by numpy's own unique, of which float32 holds each."""
    rows = [np.unique(row, return_inverse=True)[1] for row in scores]
    return np.stack(rows).astype(np.float32)


@pytest.mark.quick
@pytest.mark.parametrize("kind", CLOSE)
def test_scores_are_ranked_in_their_own_type(kind):
    scores = CLOSE[kind]
    for first, place in ((1, 0), (0, 1), (2, 2)):
        labels = {"query_identities": [7], "gallery_identities": np.array([1, 2, 3])}
        labels["gallery_identities"][first] = 7
        found = evaluate(scores, **labels)
        assert found.mean_ap == pytest.approx(1 / (1 + place))
    found = top_k(scores, k=3)
    assert found.ids.tolist() == [[1, 0, 2]]
    assert found.scores.dtype == jnp.float32
    with np.errstate(over="ignore"):
        expected = scores[:, [1, 0, 2]].astype(np.float32)
    np.testing.assert_array_equal(found.scores, expected)


@pytest.mark.quick
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["float64", "huge", "int64", "uint64", "int32"])
def test_arrays_of_jax_are_ranked_in_64_bits(kind, traced):
    def both(scores):
        found = evaluate(scores, query_identities=[7], gallery_identities=[1, 7, 3])
        return found.mean_ap, top_k(scores, k=3).ids

    with jax.enable_x64(kind != "int32"):
        mean_ap, ids = (jax.jit(both) if traced else both)(jnp.asarray(CLOSE[kind]))
    assert mean_ap == 1
    assert ids.tolist() == [[1, 0, 2]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), step=st.sampled_from([1e-12, 1e-9, 1e-3, 1.0]))
def test_float64_is_ranked_as_its_ranks_are(seed, step):
    rng = np.random.default_rng(seed)
    scores = 1 + step * rng.integers(0, 20, (Q, G)) * rng.choice([-1, 1], (Q, G))
    labels = _labels(3)
    _same(evaluate(scores, **labels), evaluate(_ranks(scores), **labels))
    np.testing.assert_array_equal(
        top_k(scores, k=7).ids, top_k(_ranks(scores), k=7).ids
    )


def test_ties_of_float64_go_to_the_lower_index():
    scores = np.array([[1.0, 1 + 1e-12, 1 + 1e-12, 1.0, 1 + 1e-12]])
    assert top_k(scores, k=5).ids.tolist() == [[1, 2, 4, 0, 3]]


@pytest.mark.quick
def test_64_bit_mode_changes_nothing():
    scores = np.random.default_rng(0).normal(size=(Q, G)).astype(np.float32)
    labels = _labels()
    ids: Any = np.argsort(-scores, axis=1)[:, :9]
    ranking = Ranking(ids, ids)
    expected = [evaluate(scores, **labels), top_k(scores, k=3)]
    expected.append(evaluate(ranking, **labels))
    with jax.enable_x64(True):
        found = [evaluate(scores, **labels), top_k(scores, k=3)]
        found.append(evaluate(ranking, **labels))
        traced = jax.jit(lambda s, labels: evaluate(s, **labels))(scores, labels)
    for mine, yours in zip([*found, traced], [*expected, expected[0]], strict=True):
        _same(mine, yours)
        assert [x.dtype for x in mine] == [x.dtype for x in yours]


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float32"])
def test_tensors_are_read(dtype):
    torch = pytest.importorskip("torch")
    plain = np.round(np.random.default_rng(0).normal(size=(Q, G)), 1)
    scores = torch.tensor(plain, dtype=getattr(torch, dtype), requires_grad=True)
    labels = _labels()
    tensors: dict[str, Any] = {name: torch.tensor(v) for name, v in labels.items()}
    exact = scores.detach().double().numpy()
    _same(evaluate(scores, **tensors), evaluate(exact, **labels))
    _same(top_k(scores, k=4), top_k(exact, k=4))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((Q, G), complex), "scores: expected real numbers, got dtype complex"),
        (np.ones((Q, G), bool), "scores: expected real numbers, got dtype bool"),
        (np.full((Q, G), "a"), "scores: expected real numbers, got dtype <U1"),
        (np.full((Q, G), None), "scores: expected real numbers, got dtype object"),
        (None, r"scores: expected scores \[Q, G\], got shape \(\)"),
        ([[1.0], [1.0, 2.0]], "scores: list cannot be read as an array"),
        (np.full((Q, G), np.nan), "scores: 5 row.* NaN, first row 0"),
        (jnp.ones((Q, G), complex), "scores: expected real numbers, got dtype complex"),
    ],
)
def test_what_is_no_score_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        evaluate(scores, **_labels())
    with pytest.raises(ValueError, match=message):
        top_k(scores, k=1)


def _as_text(labels: dict[str, Any], change) -> dict[str, Any]:
    return {name: change(values) for name, values in labels.items()}


@pytest.mark.quick
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.astype(str),
        lambda v: v.astype(str).tolist(),
        lambda v: v.astype(str).astype(object),
        lambda v: v.astype(str).astype(bytes),
        lambda v: np.where(v == -1, "", np.char.add("car ", v.astype(str))),
        lambda v: v.tolist(),
        lambda v: v.astype(object),
        lambda v: v.astype(np.int8),
        lambda v: [int(x) if x == -1 else int(x) + 2**70 for x in v],
    ],
    ids=["str", "list", "object", "bytes", "words", "ints", "objects", "int8", "big"],
)
def test_labels_of_every_kind_mean_the_same(change):
    scores = np.random.default_rng(1).normal(size=(Q, G)).astype(np.float32)
    labels = _labels()
    _same(evaluate(scores, **_as_text(labels, change)), evaluate(scores, **labels))


def test_bytes_and_text_are_compared():
    found = evaluate(
        np.array([[0.9, 0.8]]),
        query_identities=np.array(["rot", ""]).astype(object)[:1],
        gallery_identities=np.array([b"blau", b"rot"]),
    )
    assert found.mean_ap == pytest.approx(0.5)


@pytest.mark.quick
def test_the_largest_unsigned_label_is_not_unknown():
    scores = np.array([[0.9, 0.8]])
    for top in (np.uint64(2**64 - 1), np.uint32(2**32 - 1)):
        query, gallery = np.array([top]), np.array([5, top], top.dtype)
        found = evaluate(scores, query_identities=query, gallery_identities=gallery)
        assert found.mean_ap == pytest.approx(0.5)

    def traced(query, gallery):
        return evaluate(scores, query_identities=query, gallery_identities=gallery)

    with jax.enable_x64(True):
        query = jnp.array([2**64 - 1], jnp.uint64)
        gallery = jnp.array([-1, 2**62])
        assert not jax.jit(traced)(query, gallery).valid[0]
        gallery = jnp.array([2**32 - 1, 2**64 - 1], jnp.uint64)
        assert jax.jit(traced)(query, gallery).mean_ap == pytest.approx(0.5)
        assert traced(query, gallery).mean_ap == pytest.approx(0.5)
    query, gallery = jnp.array([2**32 - 1], jnp.uint32), jnp.array([-1, 2])
    assert not jax.jit(traced)(query, gallery).valid[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_cameras": 3}, r"query_cameras: expected shape \(5,\), got \(\)"),
        ({"gallery_cameras": 3}, r"gallery_cameras: expected shape \(40,\), got \(\)"),
        ({"gallery_identities": 3}, r"gallery_identities: expected shape \(40,\)"),
        ({"query_identities": np.zeros(Q)}, "query_identities: .* dtype float64; conv"),
        ({"query_identities": [1.0] * Q}, "query_identities: .* dtype float64; conv"),
        ({"query_identities": ["a"] * Q}, "query_ident.*: is text and gallery_ident"),
        ({"gallery_cameras": ["a"] * G}, "gallery_cameras: is text and query_cameras"),
        (
            {"query_identities": ["a", 1, 2, 3, 4]},
            "query_identities: .* got both: 'a' at 0 and 1 at 1",
        ),
        (
            {"query_identities": ["a", "b", None, "c", "d"]},
            "query_identities: expected integers or text, got None at 2",
        ),
        (
            {"query_identities": np.ones(Q, bool)},
            "query_identities: expected integers or text, got dtype bool",
        ),
        ({"query_identities": [True] * Q}, "query_identities: .* got bool at 0"),
    ],
)
def test_labels_that_are_none_are_named(change, message):
    arguments = _labels() | change
    with pytest.raises(ValueError, match=message.replace("None at", "NoneType at")):
        evaluate(np.ones((Q, G)), **arguments)
    ids: Any = np.broadcast_to(np.arange(3), (Q, 3))
    if "(40,)" not in message.replace("\\", ""):  # of a Ranking G is not known
        with pytest.raises(ValueError, match=message.replace("None at", "NoneType at")):
            evaluate(Ranking(ids, ids), **arguments)


def test_a_ranking_needs_a_list_of_labels():
    ids = jnp.zeros((1, 1), jnp.int32)
    scalar: Any = 1
    with pytest.raises(ValueError, match=r"gallery_identities: expected labels of sha"):
        evaluate(Ranking(ids, ids), query_identities=[1], gallery_identities=scalar)
    wide: Any = np.array([[2**32]])
    with pytest.raises(ValueError, match=r"scores.ids: expected gallery indices"):
        evaluate(Ranking(wide, wide), query_identities=[1], gallery_identities=[1])


def _retrieval(
    seed: int, queries: int, noise: float
) -> tuple[np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, 12, queries), rng.integers(0, 12, 120)
    centres = rng.normal(size=(12, 16))
    rows = [centres[i] + noise * rng.normal(size=(len(i), 16)) for i in identities]
    query, gallery = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows)
    names = "query_identities", "gallery_identities"
    return query @ gallery.T, dict(zip(names, identities, strict=True))


@pytest.mark.quick
@pytest.mark.parametrize("queries", [20, 60])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_a_distance_passed_as_a_score_is_noticed(queries, noise):
    scores, labels = _retrieval(0, queries, noise)
    assert evaluate(scores, **labels).mean_ap > 0.8
    with pytest.warns(UserWarning, match=f"of {queries} queries .* give the negative"):
        evaluate(1 - scores, **labels)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    noise=st.floats(0, 5),
    kind=st.sampled_from(["good", "random", "flat", "few levels"]),
)
def test_no_ranking_that_is_good_or_random_is_taken_for_a_distance(seed, noise, kind):
    scores, labels = _retrieval(seed, 30, noise)
    rng = np.random.default_rng(seed)
    if kind == "random":
        scores = rng.normal(size=scores.shape)
    elif kind == "flat":
        # Sorted, the last identity stands last in every list of equal scores.
        scores = np.zeros(scores.shape)
        labels["gallery_identities"] = np.sort(labels["gallery_identities"])
        labels["query_identities"][:] = 11
        labels["gallery_identities"][-1] = 11
    elif kind == "few levels":
        scores = rng.integers(0, 2, scores.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(scores, **labels)


@pytest.mark.parametrize("queries", [1, 4, 19])
def test_few_queries_say_nothing_about_distances(queries):
    scores, labels = _retrieval(0, queries, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(-scores, **labels).mean_ap < 0.2


def test_scores_split_over_devices_are_ranked_in_their_own_type():
    rng = np.random.default_rng(0)
    scores, labels = (2**30 + rng.integers(0, 9, (Q, G))).astype(np.int32), _labels()
    mesh = jax.make_mesh((8,), ("g",), axis_types=(jax.sharding.AxisType.Auto,))
    columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "g"))
    split = jax.device_put(scores, columns)
    _same(evaluate(split, **labels), evaluate(_ranks(scores), **labels))
    np.testing.assert_array_equal(top_k(split, k=7).ids, top_k(scores, k=7).ids)


def test_more_different_scores_than_ranks(monkeypatch):
    monkeypatch.setattr("dex_jax._checks._scores._EXACT", 3)
    close = 1 + 1e-12 * np.array([[0, 1, 2, 2, 1]])
    assert top_k(close, k=1).ids.tolist() == [[2]]
    for scores in (1 + 1e-12 * np.arange(4)[None], 10 + np.arange(4)[None]):
        with pytest.raises(ValueError, match="scores: a row may hold 3 different val"):
            top_k(scores, k=1)
    with pytest.raises(ValueError, match="scores: a row may hold 3 different values"):
        jax.jit(lambda s: top_k(s, k=1))(jnp.arange(4)[None])


def test_text_is_known_inside_jit():
    scores = np.random.default_rng(1).normal(size=(Q, G)).astype(np.float32)
    labels, known = _labels(), _as_text(_labels(), lambda v: v.astype(str))
    found = jax.jit(lambda s: evaluate(s, **known))(scores)
    for mine, yours in zip(found, evaluate(scores, **labels), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-6)
