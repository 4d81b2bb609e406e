"""Dual Embedding Expansion for vehicle re-identification, in JAX.

`import dex_jax` alone loads nothing else; a part loads on first use, as in
`dex_jax.rerank.k_reciprocal(query, gallery)`. `rerank`, `neighbors`, `metrics`,
`losses` and `embeddings` need jax and numpy alone, the others an extra each.
"""

import importlib
import pkgutil

__version__ = "0.1.0"


def __getattr__(name: str):
    try:
        return importlib.import_module(f"dex_jax.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"dex_jax.{name}":
            raise
        raise AttributeError(f"module 'dex_jax' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *(part.name for part in pkgutil.iter_modules(__path__))})
