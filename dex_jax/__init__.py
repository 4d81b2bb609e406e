"""Dual Embedding Expansion for vehicle re-identification, in JAX.

Sub-packages are imported by name and load only what they need:
`dex_jax.rerank`, `dex_jax.neighbors`, `dex_jax.metrics`, `dex_jax.losses`,
`dex_jax.models`, `dex_jax.data`, `dex_jax.report`.
"""

__version__ = "0.1.0"
