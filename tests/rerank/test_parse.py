"""Chains from text: the same as those composed by hand, or what is wrong with it."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dex_jax.rerank import Embeddings, chain, cosine_similarity, parse, steps
from dex_jax.rerank._parse import _NAMES
from tests.rerank.cases import clusters

EMBEDDINGS = Embeddings(*clusters())


@pytest.mark.parametrize("text", ["none", " none ", "cosine", "cosine()"])
def test_plain_cosine(text):
    expected = cosine_similarity(EMBEDDINGS.query, EMBEDDINGS.gallery)
    np.testing.assert_array_equal(parse(text)(EMBEDDINGS), expected)


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("dex,tracklet", (steps.dex(), steps.tracklet())),
        (
            " dex( k = 7,alpha=0.5 ) , dba(k=5,include_self='top_k',k_max=6)",
            (
                steps.dex(k=7, alpha=0.5),
                steps.dba(k=5, include_self="top_k", k_max=6),
            ),
        ),
        (
            "tracklet_means,aqe(k=3),k_reciprocal(k1=9,k2=4,lambda_=1e-1)",
            (
                steps.tracklet_means(),
                steps.aqe(k=3),
                steps.k_reciprocal(k1=9, k2=4, lambda_=0.1),
            ),
        ),
    ],
)
def test_text_is_the_chain_of_its_steps(text, links):
    pipeline, expected = parse(text), chain(*links)
    assert str(pipeline) == str(expected)
    np.testing.assert_array_equal(pipeline(EMBEDDINGS), expected(EMBEDDINGS))


# Values of options that any step takes; those of one step are made together.
COUNTS, NUMBERS = st.integers(1, 50), st.floats(0, 0.99)
VALUES: dict[str, st.SearchStrategy] = {
    **dict.fromkeys(("k", "k_query", "k1", "k2", "iterations"), COUNTS),
    **dict.fromkeys(("alpha", "gamma", "lambda_"), NUMBERS | st.integers(0, 0)),
    "gamma": NUMBERS | st.floats(0, 1e38) | st.integers(0, 10**18 - 1),
    "order": st.sampled_from(["gallery", "score"]),
    "within": st.sampled_from(["index", "similarity"]),
    "include_self": st.sampled_from(["plus", "top_k"]),
    "initial": st.sampled_from(["y", "zero"]),
    "solver": st.just("power"),
    "remat": st.booleans(),
    **dict.fromkeys(
        ("k_max", "k_query_max", "k1_max", "k2_max"),
        st.integers(60, 99) | st.none(),
    ),
}


@st.composite
def made_steps(draw):
    name = draw(st.sampled_from([n for n in _NAMES if n != "cosine"]))
    known = list(inspect.signature(getattr(steps, name)).parameters)
    names = [n for n in known if n != "weights" and draw(st.booleans())]
    options = {option: draw(VALUES[option]) for option in names}
    return getattr(steps, name)(**options), options


@given(made_steps())
def test_the_text_of_a_chain_gives_the_chain_again(made):
    step, asked = made
    pipeline = chain(step)
    again = parse(repr(pipeline))
    assert repr(again) == str(again) == repr(pipeline)
    # No digit is lost, and what is left out is a default.
    defaults = inspect.signature(getattr(steps, step.name)).parameters
    found = dict(again.steps[0].options)
    for option, value in asked.items():
        assert found.get(option, defaults[option].default) == value
    assert set(found) <= set(asked)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cosine", "none"),
        ("dex,cosine", "dex"),
        ("dex(k=20,alpha=2),dba()", "dex,dba"),
        ("dba(k_max=30,k=5)", "dba(k=5,k_max=30)"),
        (
            "dex( within='similarity' ),\n diffusion(alpha=.5)",
            "dex(within=similarity),diffusion(alpha=0.5)",
        ),
        ("diffusion(gamma=+2.0)", "diffusion(gamma=2)"),
        ("diffusion(gamma=1e-3)", "diffusion(gamma=0.001)"),
        ("diffusion(gamma=1234567.)", "diffusion(gamma=1234567)"),
    ],
)
def test_text_is_written_in_one_way(text, written):
    assert str(parse(text)) == written


FORM = r"expected steps such as dex\(k=10\),dba without brackets in brackets, got "
OPTION = "expected options of dex that are numbers or words, such as k=10, got "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dexx", "unknown step 'dexx'; allowed are none, aqe, .*; did you mean dex"),
        ("DBA", "unknown step 'DBA'; .*; did you mean dba"),
        ("k-reciprocal", "unknown step 'k-reciprocal'; .*; did you mean k_reciprocal"),
        ("zzz", "unknown step 'zzz'; allowed are none, aqe, .* diffusion, tracklet$"),
        ("none,dex", "none is the chain without steps and must stand alone"),
        ("dex(q=1)", "dex has no option 'q'; allowed are k, alpha, within, k_max$"),
        (
            "k_reciprocal(lambda=0.1)",
            "k_reciprocal has no option 'lambda'; .*; did you mean lambda_",
        ),
        ("cosine(k=1)", "cosine has no option 'k'; allowed are none$"),
        ("dex(k=1,k=2)", "dex has the option 'k' twice"),
        ("dex(k=ten)", "dex: k: expected a whole number, got 'ten'"),
        ("dex(k=1e1)", "dex: k: expected a whole number, got 10.0"),
        (f"dex(k={10**30})", "dex: k: expected a whole number, got 1e"),
        ("dex(alpha=1e999)", "dex: alpha: expected a number of at least 0, got inf"),
        ("diffusion(alpha=2)", "diffusion: alpha: expected a number of at least 0 and"),
        ("k_reciprocal(lambda_=a)", "k_reciprocal: lambda_: .* at most 1, got"),
        ("dba(include_self=no)", "dba: include_self: expected one of 'plus', 'top_k'"),
        (
            "tracklet_means(weights=1)",
            r"tracklet_means: weights: expected an array \[G\], got shape",
        ),
        (
            "tracklet,dex",
            r"chain: dex cannot stand there in \(tracklet, dex\); allowed",
        ),
        ("side_bias", r"side_bias\(...\) holds arrays or traced values, which text"),
        ("dex( ... )", r"dex\(...\) holds arrays or traced values, which text cannot"),
        ("", FORM + "nothing"),
        (" \n", FORM + "nothing"),
        ("dex,", FORM + "nothing"),
        ("dex,,dba", FORM + "',dba'"),
        ("dex(k=1", FORM + r"'dex\(k=1'"),
        ("dba,dex)", FORM + r"'dex\)'"),
        ("dex((k=1))", FORM + r"'dex\(\(k=1\)\)'"),
        ("(" * 9999, FORM + r"'\({40}'$"),
        ("dex(k=1)dba", FORM + r"'dex\(k=1\)dba'"),
        ("dex dba", FORM + "'dex dba'"),
        ("dex;dba", FORM + "'dex;dba'"),
        ("dex(k)", OPTION + "'k'"),
        ("dex(k=)", OPTION + "'k='"),
        ("dex(k=1,)", OPTION + "nothing"),
        ("dex(k=1,,alpha=2)", OPTION + "',alpha=2'"),
        ("dex(k=[1])", OPTION + r"'k=\[1\]'"),
        ("dex(k={1:2})", OPTION + "'k={1:2}'"),
        ("dex(k=0x10)", OPTION + "'k=0x10'"),
        ("dex(within='5')", OPTION + "\"within='5'\""),
        ("dex(within='index)", OPTION + '"within=\'index"'),
        ("dex(k=...)", OPTION + "'k=...'"),
        ("dex(k=\u0663)", OPTION + "'k=\u0663'"),
        ("x" * 10_001, "expected at most 10000 characters, got 10001"),
    ],
)
def test_says_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=f"^rerank: {message}"):
        parse(text)


@given(st.text(st.sampled_from("dexba(),=k.[]'\"+-_ 0159e\n")))
def test_any_text_is_a_chain_or_an_error_that_says_whose(text):
    try:
        pipeline = parse(text)
    except ValueError as error:
        assert str(error).startswith("rerank: ")
    else:
        assert str(parse(str(pipeline))) == str(pipeline)
