"""How sure a mean over queries is, and whether two chains differ."""

from typing import NamedTuple

import numpy as np

# From so many identities on a sign-flip test can end below p = .05.
LEAST_TESTED = 6


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval; NaN bounds where there is none."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not np.isnan(self.low)


class Comparison(NamedTuple):
    """A paired difference of means: its interval and a two-sided p value."""

    difference: Interval
    p_value: float


def mean_interval(
    values: np.ndarray, clusters: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Bootstraps the mean of `values` over whole identities.

    Queries of one vehicle rise and fall together, so identities are drawn, not queries;
    drawing queries would make the interval too narrow.

    Args:
        values: `[Q]`, without NaN.
        clusters: integers `[Q]`, the identity of each query.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        The mean and the 2.5 % and 97.5 % points; these are NaN where all queries are of
        one identity, from which nothing is learned of others.

    Example:
        >>> import numpy as np
        >>> mean_interval(np.array([0.5, 0.5, 0.5]), np.array([1, 1, 2]))
        Interval(mean=0.5, low=0.5, high=0.5)
        >>> mean_interval(np.array([0.2, 0.4, 0.6]), np.array([1, 1, 1])).known
        False
    """
    sums, counts = _cluster_sums(values, clusters)
    if len(sums) < 2:
        return Interval(float(values.mean()), np.nan, np.nan)
    draws = _draw_clusters(len(sums), resamples, seed)
    means = (draws @ sums) / (draws @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def paired_comparison(
    values: np.ndarray,
    baseline: np.ndarray,
    clusters: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Tests whether `values` and `baseline`, paired by query, have one mean.

    A sign-flip permutation test over identities: were the chain worth nothing, the
    gain summed over each vehicle's queries could as well be a loss.

    Args:
        values: `[Q]`, without NaN.
        baseline: `[Q]`, the same queries.
        clusters: integers `[Q]`.
        resamples: bootstrap draws and sign flips.
        seed: of both.

    Returns:
        The mean gain with its interval, and p, at least 1 / (resamples + 1) and, with
        n identities, about 2 / 2^n: fewer than `LEAST_TESTED` cannot reach .05.
    """
    gain = values - baseline
    sums, _ = _cluster_sums(gain, clusters)
    signs = np.random.default_rng(seed).integers(0, 2, (resamples, len(sums))) * 2 - 1
    # A relative slack, so that rounding does not tell equal sums apart.
    reached = np.abs(signs @ sums) >= np.abs(sums.sum()) * (1 - 1e-9)
    return Comparison(
        mean_interval(gain, clusters, resamples=resamples, seed=seed),
        float((reached.sum() + 1) / (resamples + 1)),
    )


def holm(p_values: list[float]) -> list[float]:
    """Adjusts p values for testing several chains at once (Holm's method).

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, p_values[i] * (len(p_values) - place)))
        adjusted[i] = worst
    return adjusted


def _cluster_sums(
    values: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    _, of = np.unique(clusters, return_inverse=True)
    return np.bincount(of, values), np.bincount(of).astype(np.float64)


def _draw_clusters(count: int, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), resamples)
