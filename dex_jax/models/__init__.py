"""Backbones, the partition network, and weights from elsewhere."""

from dex_jax._checks import missing_extra

try:
    from dex_jax.models import parts
    from dex_jax.models._build import BACKBONES, backbone, build
    from dex_jax.models._chain import Chain
    from dex_jax.models._checkpoints import read_torch_checkpoint
    from dex_jax.models._functional import apply, merge, split
    from dex_jax.models._packaged import packaged_checkpoint
    from dex_jax.models._partition import PartitionNetwork
    from dex_jax.models._weights import (
        LoadReport,
        load_torch_weights,
        save_torch_weights,
        torch_tensors,
    )
except ModuleNotFoundError as error:
    raise missing_extra(error, "train") from None

__all__ = [
    "BACKBONES",
    "Chain",
    "LoadReport",
    "PartitionNetwork",
    "apply",
    "backbone",
    "build",
    "load_torch_weights",
    "merge",
    "packaged_checkpoint",
    "parts",
    "read_torch_checkpoint",
    "save_torch_weights",
    "split",
    "torch_tensors",
]
