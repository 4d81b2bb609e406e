"""Data sets: those of the field, one's own, and the embedded one."""

from dex_jax._checks import missing_extra, require

try:
    from dex_jax.data._catalog import NAMES, load, read_options
    from dex_jax.data._decode import decode
    from dex_jax.data._hold_out import add_synthetic, class_labels, hold_out, mix
    from dex_jax.data._images import ImageFiles
    from dex_jax.data._manifest_writer import write_manifest
    from dex_jax.data._random_gallery import random_gallery
    from dex_jax.data._records import Images, Protocol, ReidData, ReidSplit
    from dex_jax.data._statistics import SplitStatistics, describe, statistics
except ModuleNotFoundError as error:
    raise missing_extra(error, "data") from None

require("PIL", extra="data")

__all__ = [
    "NAMES",
    "ImageFiles",
    "Images",
    "Protocol",
    "ReidData",
    "ReidSplit",
    "SplitStatistics",
    "add_synthetic",
    "class_labels",
    "decode",
    "describe",
    "hold_out",
    "load",
    "mix",
    "random_gallery",
    "read_options",
    "statistics",
    "write_manifest",
]
