"""Sizes that depend on data: measured once, and never trusted."""

import jax.numpy as jnp
import numpy as np

from dex_jax._checks import unit_rows
from dex_jax.rerank import _capacity, k_reciprocal
from dex_jax.rerank import _k_reciprocal as kernel
from tests.reference.k_reciprocal import final_distance
from tests.rerank.test_k_reciprocal import G, Q
from tests.rerank.test_k_reciprocal import _clusters as clusters
from tests.rerank.test_k_reciprocal import _split as split


def test_sizes_are_few_and_large_enough():
    sizes = [_capacity.round_up(size, 10_000) for size in range(1, 2_000)]
    assert all(size <= rounded for size, rounded in enumerate(sizes, 1))
    assert len(set(sizes)) < 40
    assert _capacity.round_up(50, 45) == 45  # never more than there can be


def _watched(monkeypatch, name):
    """Calls of a function of the kernel, by the size that they ask for."""
    asked, function = [], getattr(kernel, name)

    def watched(*args, **options):
        asked.append(options.get("extra", options.get("size")))
        return function(*args, **options)

    monkeypatch.setattr(kernel, name, watched)
    return asked


def test_sizes_that_prove_too_small_are_made_again_once(monkeypatch):
    query, gallery = clusters()
    expected = k_reciprocal(query, gallery, k1=12, k2=6)
    _capacity.forget()
    sets, supports = (
        _watched(monkeypatch, name) for name in ("expand", "query_support")
    )
    round_up, first = kernel.round_up, iter([True, True])

    def small(size, worst):
        # The first guess of both sizes is far too small.
        return 1 if next(first, False) else round_up(size, worst)

    monkeypatch.setattr(kernel, "round_up", small)
    found = k_reciprocal(query, gallery, k1=12, k2=6)
    np.testing.assert_array_equal(found, expected)
    assert sets[0] == 1
    assert len(sets) > 2
    # What fitted is remembered: no size is tried twice, and nothing is measured.
    del sets[:], supports[:]
    monkeypatch.setattr(kernel, "_measure_members", None)
    np.testing.assert_array_equal(k_reciprocal(query, gallery, k1=12, k2=6), expected)
    assert len(sets) == len(supports) == 1


def test_data_that_need_more_than_what_fitted_before_are_still_exact():
    _capacity.forget()
    rng = np.random.default_rng(3)
    apart = np.eye(Q + G, 64, dtype=np.float32) + 0.01 * rng.normal(size=(Q + G, 64))
    near = np.tile(rng.normal(size=(4, 64)), (20, 1))[: Q + G]
    near = near + 0.3 * rng.normal(size=near.shape)
    found = []
    for order in ((apart, near), (near, apart)):
        _capacity.forget()
        for rows in order:  # of one shape, so what fitted the first is tried
            query, gallery = split(rows.astype(np.float32))
            scores = k_reciprocal(query, gallery, k1=12, k2=6)
            unit = np.asarray(unit_rows(jnp.asarray(rows, jnp.float32)))
            expected = final_distance(unit @ unit.T, Q, k1=12, k2=6, lambda_=0.5)
            np.testing.assert_allclose(1 - scores, expected, atol=1e-5)
            found.append(scores)
    np.testing.assert_allclose(found[0], found[3], atol=1e-6)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)
