"""A distance passed where a score belongs, recognised by where the positives stand."""

import numpy as np

from dex_jax._checks._warnings import warn_user

# Of so many queries or more,
_LEAST_QUERIES = 20
# this share has positives that stand behind
_LOW = 0.9
# this share of the other images,
_BEHIND = 0.75
# and this share has a positive in the very last place.
_LAST = 0.25


def warn_of_distances(
    ranks: np.ndarray, positives: np.ndarray, kept: np.ndarray, flat: np.ndarray
) -> None:
    """Warns where nearly every query's positives score lowest.

    Positives in the second half alone prove nothing: where embeddings follow the
    camera, those of other cameras stand there. But in the last place there is then any
    image of a far camera, and under a distance a positive.

    Args:
        ranks: `[Q, W]`, of the positives among the images that count; larger than G
            where there are fewer.
        positives: `[Q]`, how many there are.
        kept: `[Q]`, how many images count.
        flat: `[Q]` bool, whether all scores of a query are equal, and so say nothing.
    """
    others = kept - positives
    tells = (positives > 0) & (others > 0) & ~flat
    number = np.count_nonzero(tells)
    if number < _LEAST_QUERIES:
        return
    found = np.where(ranks <= kept[:, None], ranks, 0).astype(np.int64)
    # How many others stand before a positive, averaged over the positives [Q].
    before = found.sum(axis=1) / np.maximum(positives, 1) - (positives + 1) / 2
    low = (before > _BEHIND * others)[tells]
    last = (found.max(axis=1) == kept)[tells]
    if low.mean() < _LOW or last.mean() < _LAST:
        return
    warn_user(
        f"scores: of {number} queries {np.count_nonzero(low)} have positives that "
        f"score lower than {_BEHIND:.0%} of the other images, as where distances are "
        "given for scores, or similarities for distances: give the negative, -distance"
    )
