"""Options out of range or of another type: refused by name, before any work."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import rerank
from dex_jax.rerank import Embeddings, NeighborCache, chain, parse, steps, top_k

ROWS = np.ones((3, 2))
IDS = np.arange(3)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "aqe": lambda **o: rerank.average_query_expansion(ROWS, ROWS, **o),
    "alpha_qe": lambda **o: rerank.alpha_query_expansion(ROWS, ROWS, **o),
    "dex": lambda **o: rerank.tracklet_query_expansion(ROWS, ROWS, IDS, **o),
    "dba": lambda **o: rerank.database_augmentation(ROWS, **o),
    "k_reciprocal": lambda **o: rerank.k_reciprocal(ROWS, ROWS, **o),
    "tracklet_k_reciprocal": lambda **o: rerank.tracklet_k_reciprocal(
        ROWS, ROWS, IDS, **o
    ),
    "diffusion": lambda **o: rerank.diffusion(ROWS, ROWS, **o),
}
COUNTS = {
    "aqe": ["k", "k_max"],
    "alpha_qe": ["k", "k_max"],
    "dex": ["k", "k_max"],
    "dba": ["k", "k_max"],
    "k_reciprocal": ["k1", "k2", "k1_max", "k2_max"],
    "tracklet_k_reciprocal": ["k1", "k2", "k1_max", "k2_max"],
    "diffusion": ["k", "k_query", "k_max", "k_query_max", "iterations"],
}
NUMBERS = {
    "alpha_qe": ["alpha"],
    "dex": ["alpha"],
    "dba": ["alpha"],
    "k_reciprocal": ["lambda_"],
    "tracklet_k_reciprocal": ["lambda_"],
    "diffusion": ["alpha", "gamma"],
}


def _both(name: str) -> list[Callable[..., Any]]:
    return [FUNCTIONS[name], getattr(steps, name)]


@pytest.mark.parametrize("value", [2**31, 3_000_000_000, 2**40, 2**70])
@pytest.mark.parametrize(("name", "options"), COUNTS.items())
def test_counts_beyond_int32(name, options, value):
    for option in options:
        for call in _both(name):
            with pytest.raises(ValueError, match=f"{option}: expected at most 21474"):
                call(**{option: value})


@pytest.mark.parametrize("value", ["a", 1.5, np.nan, True, [1], 1j, object()])
@pytest.mark.parametrize(("name", "options"), COUNTS.items())
def test_counts_that_are_none(name, options, value):
    for option in options:
        for call in _both(name):
            with pytest.raises(ValueError, match=f"{option}: expected a whole number"):
                call(**{option: value})


WRONG = [None, "a", np.nan, np.inf, -np.inf, -0.5, 1e39, 1j, True, [0.5], object()]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("name", "options"), NUMBERS.items())
def test_numbers_that_are_none(name, options, value):
    for option in options:
        for call in _both(name):
            with pytest.raises(ValueError, match=f"{option}: expected a number"):
                call(**{option: value})


def test_bounds_belong_to_the_range():
    for step in (steps.k_reciprocal, steps.tracklet_k_reciprocal):
        inside: list[Any] = [0, 1, 0.0, np.float64(1), jnp.float32(1), np.array(0)]
        for value in inside:
            step(lambda_=value)
        with pytest.raises(ValueError, match=r"lambda_: .* at most 1, got 1\.01"):
            step(lambda_=1.01)
    with pytest.raises(ValueError, match=r"alpha: .* least 0 and below 1, got 1"):
        steps.diffusion(alpha=1)


def test_traced_numbers_must_be_scalars():
    for call in (
        lambda x: steps.k_reciprocal(lambda_=x),
        lambda x: steps.add_scores(np.ones((2, 2)), weight=x),
        lambda x: steps.same_camera([1], [1], penalty=x),
    ):
        with pytest.raises(ValueError, match="expected a number"):
            jax.eval_shape(call, jnp.ones(2))
        with pytest.raises(ValueError, match="expected a number"):
            jax.eval_shape(call, jnp.array(1j))


def test_counts_of_chains_and_lists():
    message = "expected at most 2147483647, got 3000000000"
    with pytest.raises(ValueError, match=f"k: {message}"):
        top_k(np.ones((2, 2)), k=3_000_000_000)
    with pytest.raises(ValueError, match=f"top: {message}"):
        chain()(Embeddings(ROWS, ROWS), top=3_000_000_000)
    with pytest.raises(ValueError, match=f"keep: {message}"):
        NeighborCache(keep=3_000_000_000)
    with pytest.raises(ValueError, match="k1_max: expected"):
        parse(f"k_reciprocal(k1_max={2**40})")
