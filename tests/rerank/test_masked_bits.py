"""Counts under a static maximum leave every bit of a plain sum as it is."""

import jax
import numpy as np
import pytest

from tests.rerank.test_masked_counts import DATA, EXACT, MOST


@pytest.mark.parametrize(
    ("data", "counts"), [("clusters", (1, 7)), ("ties", (5, MOST))]
)
@pytest.mark.parametrize("name", EXACT)
def test_equals_the_plain_call(name, data, counts):
    function = EXACT[name]
    traced = jax.jit(lambda k: function(*DATA[data], k=k, k_max=MOST))
    for k in counts:
        plain = function(*DATA[data], k=k)
        masked = function(*DATA[data], k=k, k_max=MOST)
        np.testing.assert_array_equal(masked, plain)
        if data == "ties":  # every product is exact
            np.testing.assert_array_equal(traced(k), plain)
