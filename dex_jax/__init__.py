"""Dual Embedding Expansion for vehicle re-identification, in JAX.

`import dex_jax` alone loads nothing else; a part loads on first use, as in
`dex_jax.rerank.k_reciprocal(query, gallery)`. `rerank`, `neighbors`, `metrics`,
`losses` and `embeddings` need jax and numpy alone, the others an extra each.
"""

import importlib
import pkgutil

__version__ = "0.1.0"


def __getattr__(name: str):
    missing = f"module 'dex_jax' has no attribute {name!r}"
    if name.startswith("_"):
        raise AttributeError(missing)
    try:
        return importlib.import_module(f"dex_jax.{name}")
    except ModuleNotFoundError as error:
        # An extra that is not installed is said in its own words.
        said = missing if error.name == f"dex_jax.{name}" else str(error)
        raise AttributeError(said) from error


def __dir__() -> list[str]:
    parts = (part.name for part in pkgutil.iter_modules(__path__))
    return sorted({*globals(), *(part for part in parts if part[0] != "_")})
