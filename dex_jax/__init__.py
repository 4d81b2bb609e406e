"""Dual Embedding Expansion for vehicle re-identification, in JAX.

`import dex_jax` alone loads nothing else; a sub-package loads on first use, as in
`dex_jax.rerank.k_reciprocal(query, gallery)`. `rerank`, `neighbors`, `metrics`,
`losses` and `embeddings` need jax and numpy alone, the others an extra each.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dex_jax import (
        data,
        embeddings,
        evaluation,
        losses,
        metrics,
        models,
        neighbors,
        pipeline,
        procedural,
        report,
        rerank,
        runs,
        training,
    )

__version__ = "0.1.0"

__all__ = [
    "data",
    "embeddings",
    "evaluation",
    "losses",
    "metrics",
    "missing_extra",
    "models",
    "neighbors",
    "pipeline",
    "procedural",
    "report",
    "rerank",
    "runs",
    "training",
]

# Which extra of the distribution brings a module that the base install lacks.
_EXTRAS = {
    "PIL": "data",
    "absl": "train",
    "array_record": "data",
    "flax": "train",
    "jinja2": "report",
    "matplotlib": "report",
    "ml_collections": "train",
    "optax": "train",
    "orbax": "train",
    "rich": "data",
    "safetensors": "train",
    "tensorboardX": "train",
    "tensorflow_datasets": "data",
}


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'dex_jax' has no attribute {name!r}")
    return importlib.import_module(f"dex_jax.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def missing_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Says which extra brings a module that could not be imported.

    Args:
        error: of the import.

    Returns:
        One line that names the module and the command to give; the error itself where
        no extra has that module.

    Example:
        >>> error = ModuleNotFoundError("No module named 'flax'", name="flax")
        >>> print(missing_extra(error))
        flax is not installed; pip install 'dex_jax[train]' brings it
    """
    root = (error.name or "").partition(".")[0]
    if root not in _EXTRAS:
        return error
    return ModuleNotFoundError(
        f"{root} is not installed; pip install 'dex_jax[{_EXTRAS[root]}]' brings it",
        name=error.name,
    )
