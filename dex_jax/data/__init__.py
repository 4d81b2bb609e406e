"""Data sets, identity-balanced batches, augmentation and the input road."""

from dex_jax.data._records import Protocol, ReidData, ReidSplit

__all__ = ["Protocol", "ReidData", "ReidSplit"]
