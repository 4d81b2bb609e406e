"""k-reciprocal re-ranking against hand arithmetic, sets and reference vectors."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dex_jax import neighbors
from dex_jax._checks import unit_rows
from dex_jax.neighbors._blocks import divide
from dex_jax.neighbors._search import self_search
from dex_jax.rerank import (
    Embeddings,
    NeighborCache,
    _capacity,
    _k_reciprocal_sets,
    k_reciprocal,
    parse,
)
from dex_jax.rerank import _k_reciprocal as kernel
from dex_jax.rerank import _k_reciprocal_jaccard as _jaccard
from dex_jax.rerank._embeddings import best
from dex_jax.rerank._k_reciprocal_sets import Members, encode, expand
from tests.reference.k_reciprocal import (
    expanded_set,
    final_distance,
    neighbour_lists,
)
from tests.rerank.cases import unit_signs

Q, G, D = 7, 50, 12  # as many rows as `unit_signs` gives


def _clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, D))
    x = centres[rng.integers(0, 6, Q + G)] + 0.5 * rng.normal(size=(Q + G, D))
    return x[:Q].astype(np.float32), x[Q:].astype(np.float32)


def _split(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows[:Q], rows[Q:]


def _sets(ids: jax.Array, members: Members) -> list[set[int]]:
    rows = zip(*map(np.asarray, (ids, members.listed, members.extra)), strict=True)
    return [set(near[flags]) | set(extra) - {-1} for near, flags, extra in rows]


@pytest.mark.quick
def test_jaccard_by_hand():
    # Angles 0 (query), 1, 2 and 40 degrees; k1 = 1, k2 = 1. The lists are {q, a},
    # {a, q} (the query stands first among equals by index), {b, a}, {c, b}: q and a
    # are reciprocal, b and c have themselves alone.
    angles = np.deg2rad([0.0, 1.0, 2.5, 40.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    d = 1 - np.cos(angles[:, None] - angles)
    d /= d.max(axis=1, keepdims=True)
    q = np.exp([-d[0, 0], -d[0, 1]])
    a = np.exp([-d[1, 0], -d[1, 1]])
    shared = np.minimum(q / q.sum(), a / a.sum()).sum()
    expected = [shared / (2 - shared), 0, 0]
    scores = k_reciprocal(rows[:1], rows[1:], k1=1, k2=1, lambda_=0)
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("k1", "k2", "lambda_"),
    [(12, 6, 0.5), (13, 1, 0.3), (1, 9, 0.0), (56, 57, 0.2)],
)
def test_agrees_with_sets_on_ties_and_duplicates(seed, k1, k2, lambda_):
    rows = unit_signs(seed)
    rows[Q + 3 : Q + 9] = rows[Q]  # exact duplicates
    expected = final_distance(rows @ rows.T, Q, k1=k1, k2=k2, lambda_=lambda_)
    scores = k_reciprocal(*_split(rows), k1=k1, k2=k2, lambda_=lambda_)
    np.testing.assert_allclose(1 - scores, expected, atol=1e-6)


@pytest.mark.parametrize("k2", [1, 3])
def test_more_duplicates_than_a_list_holds(k2):
    # Points behind k1 + 1 equal ones are outside their own lists and have no members.
    rows = np.ones((Q + G, 4), np.float32) / 2
    rows[-20:, 0] = -0.5
    expected = final_distance(rows @ rows.T, Q, k1=5, k2=k2, lambda_=0.25)
    for most in (None, 4):
        scores = k_reciprocal(*_split(rows), k1=5, k2=k2, lambda_=0.25, k2_max=most)
        np.testing.assert_allclose(1 - scores, expected, atol=1e-6)


def test_all_points_equal():
    rows = np.ones((Q + G, 4), np.float32)
    assert np.isfinite(k_reciprocal(*_split(rows), k1=5, k2=3)).all()


def test_one_query_and_one_gallery_image():
    scores = k_reciprocal(np.eye(1, 3), 2 * np.eye(1, 3), k1=1, k2=1)
    np.testing.assert_allclose(scores, [[1.0]], atol=1e-6)


@pytest.mark.parametrize("instance", ["a", "b"])
def test_reference_vectors(golden, instance):
    inputs = np.load(golden / "rerank" / f"{instance}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{instance}_kreciprocal.npz")
    for name in vectors.files:
        k1, k2, lambda_ = re.findall(r"k1_(\d+)_k2_(\d+)_lam_(.+)", name)[0]
        scores = k_reciprocal(
            inputs["q"], inputs["g"], k1=int(k1), k2=int(k2), lambda_=float(lambda_)
        )
        np.testing.assert_allclose(1 - scores, vectors[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("k1", "k2"), [(60, 30), (20, 6)])
def test_reference_steps(golden, k1, k2):
    inputs = np.load(golden / "rerank" / "a_inputs.npz")
    steps = np.load(golden / "rerank" / "a_kreciprocal_steps.npz")
    rows = jnp.concatenate([inputs["q"], inputs["g"]])
    size = rows.shape[0]
    pool = self_search(rows, k=k1 + 1)
    np.testing.assert_array_equal(pool.ids, steps[f"k1_{k1}_k2_{k2}_list"])
    members = expand(pool.ids, half=k1 // 2, extra=240)
    sets = _sets(pool.ids, members)
    united = np.array([[j in members for j in range(size)] for members in sets])
    packed = steps[f"k1_{k1}_k2_{k2}_rstar_packed"]
    expected = np.unpackbits(packed, axis=1)[:, :size].astype(bool)
    np.testing.assert_array_equal(united, expected)
    encoding = encode(rows, pool, members)
    dense = np.zeros((size, size))
    np.add.at(dense, (np.arange(size)[:, None], encoding.ids), encoding.weights)
    np.testing.assert_allclose(dense, steps[f"k1_{k1}_k2_{k2}_V"], atol=1e-6)


@pytest.mark.quick
def test_sets_are_those_of_the_definition():
    rows = unit_signs(4)
    ids = self_search(jnp.asarray(rows), k=14).ids
    lists = neighbour_lists(rows @ rows.T, len(rows))
    assert ids.tolist() == [row[:14] for row in lists]
    sets = _sets(ids, expand(ids, half=6, extra=80))
    assert sets == [expanded_set(lists, i, 13) for i in range(len(rows))]


@pytest.mark.parametrize("form", ["cpu", "wide"])
def test_blocks_change_nothing(monkeypatch, form):
    for name in ("_CPU_BYTES", "_WIDE_BYTES"):
        monkeypatch.setattr(_jaccard, name, 1)
        monkeypatch.setattr(_k_reciprocal_sets, name, 1)
    for name in ("_CPU_QUERIES", "_WIDE_QUERIES"):
        monkeypatch.setattr(_jaccard, name, 3)
    monkeypatch.setattr(_jaccard, "_LEAST_TILE", 11)
    monkeypatch.setattr(_jaccard, "_ENTRY_COST", 0)
    # A size that no other test compiles: nothing blocked otherwise is reused.
    rows = unit_signs(6)[:-2]
    query, gallery = map(jnp.asarray, _split(rows))
    expected = final_distance(rows @ rows.T, Q, k1=12, k2=6, lambda_=0.5)
    with neighbors.form(form):
        scores = k_reciprocal(query, gallery, k1=12, k2=6)
        pipeline = parse("k_reciprocal(k1=12,k2=6)")
        found = pipeline(Embeddings(query, gallery), top=20)
    np.testing.assert_allclose(1 - scores, expected, atol=1e-6)
    np.testing.assert_allclose(found.scores, best(scores, 20).scores, atol=1e-6)
    np.testing.assert_array_equal(found.ids, best(scores, 20).ids)


@pytest.mark.parametrize("chain", ["k2=6", "k2=4,k2_max=6", "k2=1"])
def test_tables_of_the_points_of_supports_alone_change_nothing(monkeypatch, chain):
    rows = unit_signs(7)
    pipeline = parse(f"k_reciprocal(k1=12,{chain})")
    query, gallery = _split(rows)
    one = Embeddings(query[:1], gallery)  # of one query, so that most points fall out
    expected, best_few = pipeline(one), pipeline(one, top=9)
    points = []

    def watched(*args, **options):
        points.append(options["points"])
        return compared(*args, **options)

    compared = kernel.compared
    monkeypatch.setattr(kernel, "compared", watched)
    monkeypatch.setattr(kernel, "_LEAST_POINTS", 0)
    monkeypatch.setattr(kernel, "_WORTH", 1)
    monkeypatch.setattr(_jaccard, "_PAIRS", 5)
    monkeypatch.setattr(_jaccard, "_LEAST_TILE", 11)
    monkeypatch.setattr(_jaccard, "_CPU_BYTES", 1)
    _capacity.forget()
    np.testing.assert_allclose(pipeline(one), expected, atol=1e-6)
    assert points[-1] < 1 + G
    found = pipeline(one, top=9)
    np.testing.assert_array_equal(found.ids, best_few.ids)
    _capacity.forget()


@pytest.mark.parametrize("known", [False, True])
def test_ranking_is_the_top_of_the_scores(known):
    query, gallery = map(jnp.asarray, _split(unit_signs(5)))
    cache = NeighborCache(least=30) if known else None
    scores = k_reciprocal(query, gallery, k1=12, k2=6, lambda_=0.3)
    pipeline = parse("k_reciprocal(k1=12,k2=6,lambda_=0.3)")
    found = pipeline(Embeddings(query, gallery), top=G, cache=cache)
    # Scores that differ by rounding alone may change places; ids stay a permutation.
    np.testing.assert_array_equal(np.sort(found.ids, axis=1), np.tile(range(G), (Q, 1)))
    np.testing.assert_allclose(found.scores, best(scores, G).scores, atol=1e-6)


def test_jit_and_vmap_over_lambda():
    query, gallery = _clusters()
    weights = np.array([0.0, 0.3, 1.0], np.float32)
    eager = [k_reciprocal(query, gallery, k1=12, k2=6, lambda_=w) for w in weights]
    swept = jax.jit(
        jax.vmap(lambda w: k_reciprocal(query, gallery, k1=12, k2=6, lambda_=w))
    )(weights)
    np.testing.assert_allclose(swept, np.stack(eager), atol=1e-6)


def test_encodings_of_many_blocks(monkeypatch):
    rows = jnp.asarray(unit_signs(8))
    pool = self_search(rows, k=13)
    lowest = jnp.matmul(rows, rows.T, precision="highest").min(axis=1)
    np.testing.assert_array_equal(pool.minimum, lowest)
    members = expand(pool.ids, half=6, extra=40)
    counts = (np.asarray(members.extra) >= 0).sum(axis=1)
    assert len(set(counts)) > 3
    whole = encode(rows, pool, members)
    for form in ("cpu", "wide"):
        monkeypatch.setattr(_k_reciprocal_sets, "_CPU_BYTES", 4 * 20 * 10)
        monkeypatch.setattr(_k_reciprocal_sets, "_WIDE_BYTES", 4 * 20 * 40 * 10)
        # A size of its own, that nothing compiled otherwise is reused.
        with neighbors.form(form):
            parts = encode(jnp.pad(rows, ((0, 0), (0, 4))), pool, members)
        np.testing.assert_array_equal(parts.ids, whole.ids)
        np.testing.assert_allclose(parts.weights, whole.weights, rtol=1e-6)


def test_a_sharded_gallery_gives_the_same():
    query, gallery = _clusters()
    gallery = gallery[:48]
    mesh = jax.make_mesh((8,), ("g",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("g"))
    np.testing.assert_allclose(
        k_reciprocal(query, jax.device_put(gallery, rows), k1=12, k2=6),
        k_reciprocal(query, gallery, k1=12, k2=6),
        atol=1e-6,
    )


def test_lambda_one_is_the_original_distance():
    query, gallery = map(unit_rows, map(jnp.asarray, _clusters()))
    scores = k_reciprocal(query, gallery, k1=12, k2=6, lambda_=1)
    cosine = np.asarray(jnp.matmul(query, gallery.T, precision="highest"))
    np.testing.assert_array_equal(
        np.argsort(-scores, axis=1)[:, :10], np.argsort(-cosine, axis=1)[:, :10]
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    order=st.permutations(range(G)),
    scale=st.floats(0.01, 100),
)
def test_properties(seed, order, scale):
    query, gallery = _clusters(seed)
    scores = np.asarray(k_reciprocal(query, gallery, k1=12, k2=6, lambda_=0))
    assert (scores >= 0).all()  # 1 - Jaccard distance
    assert (scores <= 1 + 1e-6).all()
    order = list(order)
    moved = k_reciprocal(query, gallery[order] * scale, k1=12, k2=6, lambda_=0)
    # A near tie may fall either way after rounding: almost all entries are the same.
    assert np.mean(np.abs(np.asarray(moved) - scores[:, order]) > 1e-5) < 0.05


def test_no_array_of_pool_by_pool():
    size, width = 4096, 16
    ids = jax.ShapeDtypeStruct((size, width), jnp.int32)
    program = expand.lower(ids, half=7, extra=24).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * size * size


def _copied(lowered: jax.stages.Lowered, rows: int, columns: int) -> int:
    """How often a program copies a table of this size."""
    text = lowered.compile().as_text() or ""
    assert f"[{rows},{columns}]" in text
    return len(re.findall(rf"\[{rows},{columns}\]\S* copy\(", text))


def test_tables_are_not_copied_for_each_block():
    # At a million points a copy for each block would be more than all other work.
    size, width, queries = 60_000, 8, 5
    ids = jax.ShapeDtypeStruct((size, width), jnp.int32)
    weights = jax.ShapeDtypeStruct((size, width), jnp.float32)
    slots = 4 * (size + 4 * width * 4)
    block = divide(size, _k_reciprocal_sets._CPU_BYTES // slots).size
    assert block < size
    assert not _copied(expand.lower(ids, half=3, extra=4), block, size)

    tile = divide(size, _jaccard.tile_size(size)).size
    assert tile < size

    def compare(ids, weights, lists):
        support = _jaccard.Support(ids[:queries], weights[:queries], jnp.int32(0))
        encoding = _jaccard.Encoding(ids, weights)

        def take(carry, start, shared):
            return carry + shared

        first = jnp.zeros((queries, tile))
        found = _jaccard.compared(encoding, support, points=size)
        return _jaccard.over_gallery(found, lists, None, take, first, points=size)

    lists = jax.ShapeDtypeStruct((size, 3), jnp.int32)
    assert not _copied(jax.jit(compare).lower(ids, weights, lists), size, tile)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k1": 0}, "k1: expected at least 1, got 0"),
        ({"k2": 2.5}, "k2: expected a whole number, got 2.5"),
        ({"lambda_": 1.5}, "lambda_: .* of at least 0 and at most 1, got 1.5"),
        ({"lambda_": float("nan")}, "lambda_: .* of at least 0 and at most 1, got nan"),
        ({"query": np.zeros((2, D))}, "query: 2 row.s. are all zero"),
        ({"gallery": np.ones((3, 5))}, "query has dimension 12 and gallery has 5"),
    ],
)
def test_bad_input_is_named(change, message):
    query, gallery = _clusters()
    arguments = {"query": query, "gallery": gallery, "k1": 12, "k2": 6, **change}
    with pytest.raises(ValueError, match=message):
        k_reciprocal(arguments.pop("query"), arguments.pop("gallery"), **arguments)


def test_k1_beyond_the_pool_warns_once_and_takes_all():
    query, gallery = _clusters()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        scores = k_reciprocal(query, gallery, k1=400, k2=6)
    assert [str(w.message) for w in seen] == [
        f"k1=400 is more than the {Q + G - 1} there are; using {Q + G - 1}"
    ]
    rows = np.asarray(unit_rows(jnp.asarray(np.concatenate([query, gallery]))))
    expected = final_distance(rows @ rows.T, Q, k1=400, k2=6, lambda_=0.5)
    np.testing.assert_allclose(1 - scores, expected, atol=1e-5)
