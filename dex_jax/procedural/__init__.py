"""A renderer of vehicles for re-identification: the images of the embedded set.

Everything is drawn from a seed with numpy; `dex_jax.data.load("procedural_vehicles")`
makes a data set of it.
"""

try:
    from dex_jax.procedural._plan import RECIPES, SPLITS, VERSION, Job, digest, plan
    from dex_jax.procedural._worker import Drawn, draw_all
except ModuleNotFoundError as error:
    if error.name != "PIL":
        raise
    raise ModuleNotFoundError(
        "PIL is not installed; pip install 'dex_jax[data]' brings it", name="PIL"
    ) from None

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
