"""A renderer of vehicles for re-identification: the images of the embedded set.

Everything is drawn from a seed with numpy; `dex_jax.data.load("procedural_vehicles")`
makes a data set of it.
"""

from dex_jax.procedural._plan import RECIPES, SPLITS, VERSION, Job, digest, plan
from dex_jax.procedural._worker import Drawn, draw_all

__all__ = [
    "RECIPES",
    "SPLITS",
    "VERSION",
    "Drawn",
    "Job",
    "digest",
    "draw_all",
    "plan",
]
