"""What a score means: false matches and false non-matches at a threshold."""

from typing import NamedTuple

import numpy as np

RATES = (0.1, 0.01, 0.001, 0.0001)
# A rate is trusted when it rests on at least so many false matches.
_LEAST_FALSE_MATCHES = 10


class Verification(NamedTuple):
    """Calling two images the same vehicle when their score reaches a threshold.

    Attributes:
        false_match_rate: `[R]`, falling; the share of different vehicles accepted.
        false_non_match_rate: `[R]`, the share of same vehicles refused.
        threshold: `[R]` float32, the score from which a pair is accepted.
        suggested: the threshold to start from: the lowest of `RATES` that rests on ten
            false matches or more.
        suggested_rate: the false match rate that belongs to it.
        genuine: pairs of one vehicle.
        impostor: pairs of two.
    """

    false_match_rate: np.ndarray
    false_non_match_rate: np.ndarray
    threshold: np.ndarray
    suggested: float
    suggested_rate: float
    genuine: int
    impostor: int

    def at(self, rate: float) -> tuple[float, float]:
        """Returns the threshold and false non-match rate at one of `RATES`."""
        i = int(np.argmin(np.abs(self.false_match_rate - rate)))
        return float(self.threshold[i]), float(self.false_non_match_rate[i])


def verify(genuine: np.ndarray, impostor: np.ndarray) -> Verification:
    """Finds thresholds that keep the false match rate at or below given rates.

    Args:
        genuine: scores of pairs of one vehicle, at least one.
        impostor: scores of pairs of two vehicles, at least one.

    Returns:
        A `Verification` at rates from 0.1 down to 1e-4.

    Raises:
        ValueError: no pair of one of the kinds.

    Example:
        >>> import numpy as np
        >>> found = verify(np.array([0.9, 0.4]), np.arange(100) / 200)
        >>> round(found.at(0.1)[0], 3), found.at(0.1)[1]  # 10 of 100 may pass
        (0.445, 0.5)
    """
    if not genuine.size or not impostor.size:
        raise ValueError(
            f"scores: expected pairs of one and of two vehicles, got {genuine.size} "
            f"and {impostor.size}"
        )
    rates = np.unique([*np.geomspace(RATES[-1], RATES[0], 61), *RATES])[::-1]
    impostor = np.asarray(impostor, np.float32)
    allowed = np.floor(rates * impostor.size + 1e-9).astype(np.int64)
    most = min(int(allowed[0]) + 1, impostor.size)
    top = np.partition(impostor, impostor.size - most)[impostor.size - most :]
    top = np.sort(top)[::-1]
    # Only scores above the first impostor that must not pass are accepted.
    refused = top[np.minimum(allowed, most - 1)]
    threshold = np.nextafter(refused, np.float32(np.inf))
    genuine = np.sort(np.asarray(genuine, np.float32))
    missed = np.searchsorted(genuine, threshold, side="left") / genuine.size
    trusted = [r for r in RATES if r * impostor.size >= _LEAST_FALSE_MATCHES]
    rate = trusted[-1] if trusted else RATES[0]
    return Verification(
        rates,
        missed,
        threshold,
        float(threshold[np.argmin(np.abs(rates - rate))]),
        rate,
        int(genuine.size),
        int(impostor.size),
    )
