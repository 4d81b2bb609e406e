"""The two losses of the paper (section 3.1, equations 1 to 3)."""

from dex_jax.losses._classification import label_smoothed_cross_entropy
from dex_jax.losses._triplet import batch_hard_triplet, hardest_distances

__all__ = [
    "batch_hard_triplet",
    "hardest_distances",
    "label_smoothed_cross_entropy",
]
