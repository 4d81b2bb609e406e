"""The embeddings file, and the layouts that other people keep embeddings in."""

from dex_jax.embeddings._file import (
    EmbeddingFile,
    average,
    load,
    save,
    separate_tracklets,
)
from dex_jax.embeddings._layouts import read

__all__ = ["EmbeddingFile", "average", "load", "read", "save", "separate_tracklets"]
