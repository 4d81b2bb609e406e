"""Re-ranking steps of Dual Embedding Expansion and their composition."""

from dex_jax.rerank._embeddings import Embeddings, Ranking, top_k

__all__ = ["Embeddings", "Ranking", "top_k"]
