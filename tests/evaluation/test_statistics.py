"""Intervals over identities, paired tests, and their adjustment."""

import itertools

import numpy as np
import pytest

from dex_jax.evaluation._statistics import (
    LEAST_TESTED,
    holm,
    mean_interval,
    paired_comparison,
)


def test_interval_is_as_wide_as_identities_allow():
    # One identity holds all the spread: doubling its queries must not narrow it.
    values, clusters = np.array([0.0, 1.0]), np.array([0, 1])
    once = mean_interval(values, clusters)
    repeated = mean_interval(np.repeat(values, 50), np.repeat(clusters, 50))
    assert once == repeated == (0.5, 0.0, 1.0)


def test_interval_covers_the_mean_of_a_known_population(rng):
    covered = 0
    for _ in range(60):
        low, high = mean_interval(
            rng.uniform(size=40),
            np.arange(40),
            resamples=300,
            seed=int(rng.integers(99)),
        )[1:]
        covered += low <= 0.5 <= high
    assert covered >= 50  # 95 % of 60 is 57


def test_paired_test_matches_all_sign_flips(rng):
    gain = rng.normal(0.3, 1.0, size=8)
    flips = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = np.mean(np.abs(flips @ gain) >= abs(gain.sum()) * (1 - 1e-9))
    found = paired_comparison(gain, np.zeros(8), np.arange(8), resamples=20000)
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.difference.mean == pytest.approx(gain.mean())


def test_no_difference_is_no_evidence():
    values = np.array([0.2, 0.9, 0.4])
    found = paired_comparison(values, values, np.arange(3))
    assert found.p_value == 1.0
    assert found.difference == (0.0, 0.0, 0.0)


def test_queries_of_one_identity_count_once():
    found = paired_comparison(np.ones(100), np.zeros(100), np.zeros(100, int))
    assert found.p_value == 1.0  # one vehicle: both signs reach the same sum
    assert found.difference.mean == 1.0 and not found.difference.known
    alone = mean_interval(np.array([0.7, 0.9]), np.array([4, 4]))
    assert alone.mean == pytest.approx(0.8) and not alone.known
    assert mean_interval(np.array([0.7, 0.9]), np.array([4, 5])).known


@pytest.mark.parametrize("count", [LEAST_TESTED - 1, LEAST_TESTED])
def test_few_identities_cannot_be_told_apart(count):
    found = paired_comparison(np.ones(count), np.zeros(count), np.arange(count))
    assert (found.p_value < 0.05) == (count == LEAST_TESTED)


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert holm([0.02, 0.01, 0.9]) == pytest.approx([0.04, 0.03, 0.9])
    assert holm([0.03, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([]) == []
