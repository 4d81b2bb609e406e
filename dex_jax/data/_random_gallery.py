"""Random galleries of one image each, as PKU VehicleID is scored."""

import numpy as np

from dex_jax._checks import check_count


def random_gallery(identities: np.ndarray, *, draw: int, seed: int = 0) -> np.ndarray:
    """Draws one image of each identity; all others are queries.

    Args:
        identities: integers `[N]` of the images in the order of their sorted names, on
            which the draw depends.
        draw: which of the galleries, from 0.
        seed: of all galleries.

    Returns:
        bool `[N]`, true for the gallery.

    Example:
        >>> mask = random_gallery(np.array([5, 5, 5, 8, 8]), draw=0)
        >>> int(mask[:3].sum()), int(mask[3:].sum())
        (1, 1)
    """
    check_count(draw, "draw", least=0)
    check_count(seed, "seed", least=0, most=None)
    rng = np.random.default_rng((seed, 4, draw))
    identities = np.asarray(identities, np.int64)
    shuffled = rng.permutation(identities.size)
    first = np.unique(identities[shuffled], return_index=True)[1]
    chosen = np.zeros(identities.size, np.bool_)
    chosen[shuffled[first]] = True
    return chosen
