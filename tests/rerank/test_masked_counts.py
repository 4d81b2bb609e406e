"""Counts under a static maximum: masked, traced and lifted they change no result."""

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.rerank import (
    Embeddings,
    NeighborCache,
    alpha_query_expansion,
    average_query_expansion,
    chain,
    database_augmentation,
    diffusion,
    k_reciprocal,
    parse,
    steps,
    tracklet_k_reciprocal,
    tracklet_query_expansion,
)
from tests.reference.k_reciprocal import final_distance
from tests.rerank.cases import G, Q, clusters, signs

# Bits are compared in test_masked_bits.py, of programs as users compile them.
pytestmark = pytest.mark.usefixtures("quick_programs")

MOST = 12
# Queries, gallery and tracklets: loose clusters; rows with ties and duplicates all
# over, tracklets of one image.
DATA = {
    "clusters": clusters(),
    "ties": (signs(Q, 1), signs(G, 2), np.arange(G)[::-1]),
}


def _k_reciprocal(query, gallery, tracks, **options):
    return k_reciprocal(query, gallery, **_for_k1(options))


def _tracklet_k_reciprocal(query, gallery, tracks, **options):
    return tracklet_k_reciprocal(query, gallery, tracks, **_for_k1(options))


def _for_k1(options: dict) -> dict:
    names = {"k": "k1", "k_max": "k1_max"}
    return {"k2": 3} | {names.get(name, name): x for name, x in options.items()}


def _averaged_over_k(query, gallery, tracks, *, k, k_max=None):
    return k_reciprocal(query, gallery, k1=9, k2=k, k2_max=k_max)


def _started_from_k(query, gallery, tracks, *, k, k_max=None):
    return diffusion(query, gallery, k=9, k_query=k, k_query_max=k_max)


# Rows added with weights of 1 or 0, in one order: no bit may change.
EXACT = {
    "aqe": lambda q, g, t, **o: average_query_expansion(q, g, **o),
    "dex": partial(tracklet_query_expansion, alpha=0.0),
    "dex, similarity": partial(
        tracklet_query_expansion, alpha=0.0, within="similarity"
    ),
    "dba": lambda q, g, t, **o: database_augmentation(g, **o),
    "dba, top_k": lambda q, g, t, **o: database_augmentation(
        g, include_self="top_k", **o
    ),
}
# Other products may be fused with another sum, and sums over lists run otherwise.
CLOSE = {
    "alpha_qe": lambda q, g, t, **o: alpha_query_expansion(q, g, **o),
    "dex, squares": partial(tracklet_query_expansion, within="similarity"),
    "dba, squares": lambda q, g, t, **o: database_augmentation(g, alpha=2.0, **o),
    "diffusion": lambda q, g, t, **o: diffusion(q, g, k_query=7, **o),
    "diffusion, gamma 0": lambda q, g, t, **o: diffusion(q, g, k_query=7, gamma=0, **o),
    "diffusion, k_query": _started_from_k,
    "k_reciprocal": _k_reciprocal,
    "k_reciprocal, k2": _averaged_over_k,
    "tracklet_k_reciprocal": _tracklet_k_reciprocal,
}
FUNCTIONS: dict[str, Callable[..., jax.Array]] = EXACT | CLOSE


def _check(name: str, found: jax.Array, plain: jax.Array) -> None:
    if name in EXACT:
        np.testing.assert_array_equal(found, plain)
    else:
        np.testing.assert_allclose(found, plain, atol=2e-6)


# 5 and 7 halve to 2 and 4: half lists round half to even.
@pytest.mark.parametrize(
    ("data", "counts"), [("clusters", (1, 7)), ("ties", (5, MOST))]
)
@pytest.mark.parametrize("name", CLOSE)
def test_equals_the_plain_call(name, data, counts):
    for k in counts:
        plain = CLOSE[name](*DATA[data], k=k)
        found = CLOSE[name](*DATA[data], k=k, k_max=MOST)
        np.testing.assert_allclose(found, plain, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_the_plain_call_traced_and_lifted(name):
    function = partial(FUNCTIONS[name], *DATA["ties"], k_max=MOST)
    if name == "tracklet_k_reciprocal":
        # Lifted, but not inside jit: the number of tracklets sets a shape.
        single = function
    else:
        single = jax.jit(lambda k: function(k=k))
    counts = jnp.array([1, 7, MOST])
    lifted = jax.vmap(lambda k: function(k=k))(counts)
    for i, k in enumerate(counts):
        plain = FUNCTIONS[name](*DATA["ties"], k=int(k))
        _check(name, single(k=k), plain)
        # A program of its own, whose last bits may differ.
        np.testing.assert_allclose(lifted[i], plain, atol=2e-6)


def _equations(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@pytest.mark.parametrize("name", ["alpha_qe", "dex", "dba", "diffusion"])
def test_a_lifted_count_searches_once(name):
    function = partial(FUNCTIONS[name], *DATA["clusters"], k_max=MOST)
    lifted = jax.make_jaxpr(jax.vmap(lambda k: function(k=k)))(jnp.arange(1, 4))
    found = [
        equation.outvars[0].aval.ndim
        for equation in _equations(lifted.jaxpr)
        if equation.primitive.name in ("dot_general", "top_k")
    ]
    assert set(found) == {2}


class _Compiled(logging.Handler):
    """Keeps what jax says it compiles."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Compiling"):
            self.names.append(text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loop_over_a_count_compiles_once(name):
    query, gallery, tracks = clusters(3)
    # A size of its own, so that no other test has compiled it.
    size = G - 1 - list(FUNCTIONS).index(name)
    data = map(jnp.asarray, (query, gallery[:size], tracks[:size]))
    call = partial(FUNCTIONS[name], *data, k_max=MOST)
    compiled, log = _Compiled(), logging.getLogger("jax")
    log.addHandler(compiled)
    try:
        with jax.log_compiles():
            jax.block_until_ready(call(k=5))
            first = len(compiled.names)
            for k in (1, 2, 8, MOST):
                jax.block_until_ready(call(k=k))
    finally:
        log.removeHandler(compiled)
    assert first > 0
    assert compiled.names[first:] == []


@pytest.mark.parametrize("k1", [1, 5, 7, 13])
@pytest.mark.parametrize("k2", [2, 6])
def test_k_reciprocal_agrees_with_sets_where_duplicates_fill_lists(k1, k2):
    rows = signs(57, 4)
    rows[12:30] = rows[3]
    expected = final_distance(rows @ rows.T, 7, k1=k1, k2=k2, lambda_=0.25)
    counts = {"k1": k1, "k2": k2, "k1_max": 13, "k2_max": 6}
    scores = k_reciprocal(rows[:7], rows[7:], lambda_=0.25, **counts)
    np.testing.assert_allclose(1 - scores, expected, atol=1e-6)


@pytest.mark.parametrize("include_self", ["plus", "top_k"])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_dba_of_an_image_behind_its_duplicates(k, include_self):
    gallery = clusters()[1]
    gallery[5:15] = gallery[0]
    options = {"k": k, "include_self": include_self}
    plain = database_augmentation(gallery, **options)
    masked = database_augmentation(gallery, k_max=20, **options)
    np.testing.assert_array_equal(masked, plain)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_maximum_beyond_what_there_is_warns_once_and_takes_all(name):
    function = partial(FUNCTIONS[name], *DATA["clusters"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        masked = [function(k=k, k_max=90) for k in (7, 80)]
    assert len(seen) == 2
    for warning in seen:
        assert "_max=90 is more than the" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = [function(k=k) for k in (7, 80)]
    _check(name, masked[0], plain[0])
    _check(name, masked[1], plain[1])


def test_a_traced_count_beyond_its_maximum_is_the_maximum():
    for name in ("dex, similarity", "dba", "diffusion", "k_reciprocal, k2"):
        function = partial(FUNCTIONS[name], *DATA["clusters"])
        beyond = jax.jit(lambda k, f=function: f(k=k, k_max=MOST))(2 * MOST)
        np.testing.assert_allclose(beyond, function(k=MOST), atol=2e-6)


CHAINS = [
    ("aqe(k=3{}),diffusion(k=7,k_query=5{})", ("k_max=9", "k_max=11,k_query_max=8")),
    ("dex(k=3{}),dba(k=4{}),k_reciprocal(k1=7,k2=3{})",
     ("k_max=9", "k_max=6", "k1_max=9,k2_max=5")),
    ("alpha_qe(k=3{}),tracklet_k_reciprocal(k1=5{})", ("k_max=9", "k1_max=8")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "maxima"), CHAINS)
@pytest.mark.parametrize("top", [None, 7])
def test_in_chains(text, maxima, top):
    embeddings = Embeddings(*DATA["clusters"])
    plain = parse(text.format(*[""] * len(maxima)))(embeddings, top=top)
    masked = parse(text.format(*[f",{most}" for most in maxima]))(embeddings, top=top)
    for found, expected in zip(*map(jax.tree.leaves, (masked, plain)), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_plan_of_a_chain_is_as_wide_as_its_maxima():
    pipeline = parse("dba(k=2,k_max=5),diffusion(k=3,k_max=12)")
    assert [step.width(G) for step in (*pipeline.expand, pipeline.rank)] == [6, 12]
    assert parse("k_reciprocal(k1=2,k2=1,k1_max=9,k2_max=14)").width(G) == 14
    cache, embeddings = NeighborCache(), Embeddings(*DATA["clusters"])
    for k in (2, 5, 12):
        parse(f"diffusion(k={k},k_max=12)")(embeddings, cache=cache)
    assert cache.searches == 1


def test_a_lifted_chain():
    embeddings = Embeddings(*DATA["clusters"])

    def run(k):
        links = steps.dex(k=k, k_max=MOST), steps.diffusion(k=k, k_max=MOST)
        return chain(*links)(embeddings)

    for k, found in zip((2, 9), jax.jit(jax.vmap(run))(jnp.array([2, 9])), strict=True):
        plain = chain(steps.dex(k=k), steps.diffusion(k=k))(embeddings)
        np.testing.assert_allclose(found, plain, atol=2e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda q, g: alpha_query_expansion(q, g, k=9, k_max=8),
            "k: expected at most k_max=8, got 9",
        ),
        (
            lambda q, g: diffusion(q, g, k_query=9, k_query_max=8),
            "k_query: expected at most k_query_max=8, got 9",
        ),
        (
            lambda q, g: k_reciprocal(q, g, k2=9, k2_max=8),
            "k2: expected at most k2_max=8, got 9",
        ),
        (
            lambda q, g: database_augmentation(g, k=0, k_max=8),
            "k: expected at least 1, got 0",
        ),
        (
            lambda q, g: parse("dba(k=1,k_max=2.5)"),
            "k_max: expected a whole number, got 2.5",
        ),
        (
            lambda q, g: database_augmentation(g, k=1, k_max=0),
            "k_max: expected at least 1, got 0",
        ),
        (
            lambda q, g: jax.jit(lambda k: database_augmentation(g, k=k))(2),
            "k: sets a shape and is traced; give k_max",
        ),
        (
            lambda q, g: jax.jit(
                lambda k1: k_reciprocal(q, g, k1=k1, k1_max=9),
            )(2.0),
            "k1: expected one whole number, got float32 of shape",
        ),
        (
            lambda q, g: jax.jit(lambda k: alpha_query_expansion(q, g, k=k, k_max=9))(
                jnp.array([2])
            ),
            r"k: expected one whole number, got int32 of shape \(1,\)",
        ),
        (
            lambda q, g: parse("dex(k=5,k_max=4)"),
            "rerank: dex: k: expected at most k_max=4, got 5",
        ),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(*DATA["clusters"][:2])
