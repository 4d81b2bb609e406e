"""Data sets, identity-balanced batches, augmentation and the input road."""

from dex_jax.data._augment import augment, normalize
from dex_jax.data._catalog import NAMES, load, read_options
from dex_jax.data._hold_out import add_synthetic, class_labels, hold_out, mix
from dex_jax.data._images import ImageFiles
from dex_jax.data._manifest_writer import write_manifest
from dex_jax.data._pipeline import EvalBatch, TrainBatch, eval_batches, train_batches
from dex_jax.data._preview import preview
from dex_jax.data._random_gallery import random_gallery
from dex_jax.data._records import Images, Protocol, ReidData, ReidSplit
from dex_jax.data._sampler import IdentityBatches
from dex_jax.data._statistics import SplitStatistics, describe, statistics
from dex_jax.data._thumbnails import thumbnail

__all__ = [
    "NAMES",
    "EvalBatch",
    "IdentityBatches",
    "ImageFiles",
    "Images",
    "Protocol",
    "ReidData",
    "ReidSplit",
    "SplitStatistics",
    "TrainBatch",
    "add_synthetic",
    "augment",
    "class_labels",
    "describe",
    "eval_batches",
    "hold_out",
    "load",
    "mix",
    "normalize",
    "preview",
    "random_gallery",
    "read_options",
    "statistics",
    "thumbnail",
    "train_batches",
    "write_manifest",
]
