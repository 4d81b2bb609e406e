"""The paper's two losses (section 3.1, equations 1 to 3), and two later ones."""

from dex_jax.losses._circle import circle
from dex_jax.losses._classification import (
    additive_angular_margin,
    label_smoothed_cross_entropy,
)
from dex_jax.losses._triplet import batch_hard_triplet, hardest_distances

__all__ = [
    "additive_angular_margin",
    "batch_hard_triplet",
    "circle",
    "hardest_distances",
    "label_smoothed_cross_entropy",
]
