"""Weights of public PyTorch networks into ours, and back."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from dex_jax._checks import check_choice
from dex_jax.models._chain import Chain
from dex_jax.models._partition import PartitionNetwork
from dex_jax.models._torch_names import (
    COUNTER,
    EFFICIENTNET,
    HEADS,
    PREFIXES,
    RESNET,
    Dialect,
)


class LoadReport(NamedTuple):
    """What became of a file's tensors and of a network's backbone."""

    dialect: str
    """Whose names the file uses."""
    loaded: tuple[str, ...]
    """Tensors that were taken, by their name in the file."""
    missing: tuple[str, ...]
    """Names that the file lacks; these parameters stay as they were."""
    unexpected: tuple[str, ...]
    """Tensors that belong to nothing in the network."""
    dropped: tuple[str, ...]
    """Classifiers and counters, which have no counterpart here."""

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded ({self.dialect} names)"]
        for kind in ("missing", "unexpected", "dropped"):
            names = getattr(self, kind)
            if names:
                lines.append(f"{len(names)} {kind}: {_some(names)}")
        return "\n".join(lines)


def load_torch_weights(
    module: nnx.Module, tensors: Mapping[str, np.ndarray], *, partial: bool = False
) -> LoadReport:
    """Fills a backbone, in place, with the tensors of a PyTorch checkpoint.

    Understands the names of torchvision, IBN-Net, attention-module (CBAM), Cadene's SE
    networks, timm and EfficientNet-PyTorch, with or without a common `module.`,
    `backbone.`, `base.` or `model.` in front. In a partition network every branch gets
    its own copy. Classifiers are dropped.

    Args:
        module: from `backbone` or `build`.
        tensors: from `read_torch_checkpoint`.
        partial: accept tensors that belong to nothing, and parameters without a tensor.
            By default only CBAM parameters may be missing, so that a plain checkpoint
            can start a network with attention added.

    Returns:
        Names that were loaded, missing, unexpected and dropped; print it.

    Raises:
        ValueError: nothing matched, a tensor of another shape, or (unless `partial`) a
            checkpoint of another architecture. The module is then unchanged.

    Example:
        >>> from dex_jax import models
        >>> trained, fresh = (models.backbone("resnet_slim", rngs=s) for s in (0, 1))
        >>> report = models.load_torch_weights(fresh, models.torch_tensors(trained))
        >>> report.missing, report.unexpected
        ((), ())
    """
    tensors = _strip_prefix(tensors)
    targets = _targets(module)
    dialect, names = _best_dialect(targets, set(tensors))
    values = [
        _from_torch(tensors[name], name, target) if name in tensors else None
        for target, name in zip(targets, names, strict=True)
    ]
    known = set(names)
    left = sorted(set(tensors) - known)
    dropped = [n for n in left if n.startswith(HEADS) or n.endswith(COUNTER)]
    report = LoadReport(
        dialect,
        tuple(sorted(known & set(tensors))),
        tuple(sorted(known - set(tensors))),
        tuple(n for n in left if n not in dropped),
        tuple(dropped),
    )
    if not partial:
        _refuse_other_architecture(report)
    for target, value in zip(targets, values, strict=True):
        if value is not None:
            target.variable[...] = jnp.asarray(value, target.variable.dtype)
    return report


def torch_tensors(
    module: nnx.Module, *, dialect: str | None = None
) -> dict[str, np.ndarray]:
    """The backbone's parameters and statistics under PyTorch names and layouts.

    Args:
        module: from `backbone`, or from `build` with `trunk_split="none"` (branches
            with weights of their own have no counterpart in PyTorch).
        dialect: "torchvision" or "cadene" for ResNets, "lukemelas" or "timm" for
            EfficientNets; None takes the first that fits.

    Returns:
        Float32 arrays by name; convolutions OIHW.

    Raises:
        ValueError: an unknown dialect, or branches with their own weights.

    Example:
        >>> from dex_jax import models
        >>> tensors = models.torch_tensors(models.backbone("resnet_slim"))
        >>> tensors["conv1.weight"].shape
        (16, 3, 7, 7)
    """
    targets = _targets(module)
    dialects = _dialects(targets)
    # Cadene's names are the public ones for squeeze-excite networks.
    squeeze = "cadene" in dialects and any("se" in t.path for t in targets)
    default = "cadene" if squeeze else next(iter(dialects))
    chosen = check_choice(dialect or default, "dialect", tuple(dialects))
    names = [dialects[chosen](t.path, t.position) for t in targets]
    if len(set(names)) < len(names):
        raise ValueError(
            "module: its branches have weights of their own, which a PyTorch backbone "
            "cannot hold; export a network with trunk_split='none'"
        )
    return {
        name: _to_torch(np.asarray(target.variable[...]), name)
        for target, name in zip(targets, names, strict=True)
    }


def save_torch_weights(
    module: nnx.Module, path: str | os.PathLike[str], *, dialect: str | None = None
) -> None:
    """Writes the backbone as safetensors that PyTorch loads under its own names.

    Args:
        module: as for `torch_tensors`.
        path: file to write, ending in `.safetensors`; its folder must exist.
        dialect: as for `torch_tensors`.

    Raises:
        ValueError: another ending, an unknown dialect, branches with own weights.
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import os, tempfile
        >>> from safetensors.numpy import load_file
        >>> from dex_jax import models
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = os.path.join(folder, "slim.safetensors")
        ...     models.save_torch_weights(models.backbone("resnet_slim"), file)
        ...     load_file(file)["conv1.weight"].shape  # OIHW
        (16, 3, 7, 7)
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: expected a name ending in .safetensors, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: there is no folder {path.parent}")
    tensors = torch_tensors(module, dialect=dialect)
    contiguous = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})


class _Target(NamedTuple):
    path: tuple[str, ...]
    """Unit, attributes and leaf, such as `("layer1_0", "bn1", "scale")`."""
    position: int
    """Number of units before this one."""
    variable: nnx.Variable


def _targets(module: nnx.Module) -> list[_Target]:
    """Every variable of the backbone inside a chain or a partition network."""
    if isinstance(module, PartitionNetwork):
        trunk = module.trunk
        shared = len(trunk.order)
        chains = [(0, trunk), *[(shared, chain) for chain in module.branches.values()]]
    elif isinstance(module, Chain):
        chains = [(0, module)]
    else:
        raise ValueError(
            f"module: expected a network of models.backbone or models.build, got "
            f"{type(module).__name__}"
        )
    return [
        _Target((unit, *map(str, path)), start + index, variable)
        for start, chain in chains
        for index, unit in enumerate(chain.order)
        for path, variable in nnx.iter_graph(chain.units[unit])
        if isinstance(variable, nnx.Variable)
    ]


def _dialects(targets: list[_Target]) -> dict[str, Dialect]:
    """The dialects of the network's family."""
    residual = any(target.path[0].startswith("layer") for target in targets)
    return RESNET if residual else EFFICIENTNET


def _best_dialect(targets: list[_Target], available: set[str]) -> tuple[str, list[str]]:
    """The dialect that finds most names, and the name of every target in it."""
    found = {
        dialect: [name(t.path, t.position) for t in targets]
        for dialect, name in _dialects(targets).items()
    }
    best = max(found, key=lambda d: len(available.intersection(found[d])))
    if not available.intersection(found[best]):
        raise ValueError(
            f"tensors: none of the {len(available)} names belongs to this network; "
            f"the file has {_some(sorted(available))}; the network needs "
            f"{_some(sorted(found[best]))}"
        )
    return best, found[best]


def _strip_prefix(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes what all names start with, as often as it takes."""
    stripped = dict(tensors)
    while stripped:
        common = [p for p in PREFIXES if all(n.startswith(p) for n in stripped)]
        if not common:
            break
        stripped = {n.removeprefix(common[0]): t for n, t in stripped.items()}
    return stripped


def _from_torch(tensor: np.ndarray, name: str, target: _Target) -> np.ndarray:
    """A tensor in our layout: OIHW to HWIO, linear (out, in) to a 1 x 1 kernel."""
    shape = tuple(target.variable.shape)
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}.get(tensor.ndim)
    value = tensor if axes is None else np.transpose(tensor, axes)
    if tensor.ndim == 2:
        value = value[None, None]
    if value.shape != shape:
        expected = _to_torch(np.empty(shape, np.float32), name).shape
        raise ValueError(
            f"tensors: {name} has shape {tensor.shape}, this network needs "
            f"{expected}; the checkpoint is of another architecture"
        )
    return value.astype(np.float32)


def _to_torch(value: np.ndarray, name: str) -> np.ndarray:
    if value.ndim < 4:
        return value
    if "ChannelGate" in name:
        return value[0, 0].T
    return np.transpose(value, (3, 2, 0, 1))


def _refuse_other_architecture(report: LoadReport) -> None:
    absent = [name for name in report.missing if "cbam." not in name]
    if absent or report.unexpected:
        raise ValueError(
            "tensors: the checkpoint is of another architecture "
            f"({len(report.loaded)} tensors fit). Missing: {_some(absent)}. "
            f"Unexpected: {_some(report.unexpected)}. "
            "partial=True takes what fits all the same"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return (f"{shown}, ..." if len(names) > 4 else shown) or "none"
