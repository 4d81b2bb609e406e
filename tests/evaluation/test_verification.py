"""Thresholds, against counting by hand."""

import numpy as np
import pytest

from dex_jax.evaluation._verification import RATES, verify


def test_thresholds_keep_their_promise(rng):
    genuine, impostor = rng.normal(1, 1, 500), rng.normal(-1, 1, 20000)
    found = verify(genuine, impostor)
    impostor = impostor.astype(np.float32)
    for rate in RATES:
        threshold, missed = found.at(rate)
        passed = int((impostor >= threshold).sum())
        assert passed == int(rate * len(impostor))
        assert missed == np.mean(genuine.astype(np.float32) < threshold)


def test_ties_at_the_threshold_are_refused_together():
    # Ten of 100 may pass, but fifty impostors share the top score: none passes.
    impostor = np.array([0.5] * 50 + [0.1] * 50)
    threshold, missed = verify(np.array([0.5, 0.6]), impostor).at(0.1)
    assert threshold > 0.5
    assert missed == 0.5


def test_suggestion_rests_on_ten_false_matches(rng):
    scores = rng.normal(size=20000)
    assert verify(scores[:5], scores).suggested_rate == 0.001  # 20 of 20,000
    assert verify(scores[:5], scores[:1500]).suggested_rate == 0.01
    # Exactly ten of 10,000 are enough, nine of 9,999 are not.
    assert verify(scores[:5], scores[:10_000]).suggested_rate == 0.001
    assert verify(scores[:5], scores[:9_999]).suggested_rate == 0.01
    assert verify(scores[:5], scores[:20]).suggested_rate == 0.1


def test_rates_fall_and_misses_rise(rng):
    found = verify(rng.normal(1, 1, 100), rng.normal(size=3000))
    assert (np.diff(found.false_match_rate) < 0).all()
    assert (np.diff(found.false_non_match_rate) >= 0).all()


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_both_kinds_of_pairs_are_needed(sizes):
    with pytest.raises(ValueError, match="pairs of one and of two vehicles"):
        verify(np.zeros(sizes[0]), np.zeros(sizes[1]))
