"""Weights of public PyTorch networks into ours, and back."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from dex_jax._checks import check_choice, whole_file
from dex_jax.models._build import BACKBONES, backbone
from dex_jax.models._chain import Chain
from dex_jax.models._fitting import Fit, choose, find_fits
from dex_jax.models._layers import BatchNorm
from dex_jax.models._partition import PartitionNetwork
from dex_jax.models._resnet import Stem
from dex_jax.models._torch_names import (
    COUNTER,
    EFFICIENTNET,
    RESNET,
    SEQUENTIAL,
    Dialect,
    is_head,
)


class LoadReport(NamedTuple):
    """What became of a file's tensors and of a network's backbone."""

    dialect: str
    """Whose names the file uses."""
    loaded: tuple[str, ...]
    """Tensors that were taken, by their name behind the prefix."""
    missing: tuple[str, ...]
    """Names that the file lacks; these parameters stay as they were."""
    unexpected: tuple[str, ...]
    """Tensors behind the prefix that belong to nothing in the network."""
    dropped: tuple[str, ...]
    """Classifiers and counters, and, by their whole name, all without the prefix."""
    prefix: str = ""
    """What stands before the backbone's names in the file."""
    notes: tuple[str, ...] = ()
    """Where the network that the file was trained in computes another map."""

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded ({self.dialect} names)"]
        if self.prefix:
            lines.append(f"prefix {self.prefix!r}")
        for kind in ("missing", "unexpected", "dropped"):
            names = [n for n in getattr(self, kind) if not n.endswith(COUNTER)]
            if names:
                lines.append(f"{len(names)} {kind}: {_some(names)}")
        return "\n".join([*lines, *self.notes])


def load_torch_weights(
    module: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    *,
    partial: bool = False,
    prefix: str | None = None,
) -> LoadReport:
    """Fills a backbone, in place, with the tensors of a PyTorch checkpoint.

    Understands the names of torchvision, IBN-Net, attention-module (CBAM), Cadene's SE
    networks, timm and EfficientNet-PyTorch, and of ResNets in an `nn.Sequential`. What
    stands before them (`module.`, `backbone.`, `model.base.`) is found: it is the
    prefix that most of the backbone's names follow. Tensors without it, and classifiers
    behind it, are dropped. In a partition network every branch gets its own copy.

    Args:
        module: from `backbone` or `build`; where it is abstract (`rngs=None`), the
            tensors are checked and it stays as it is.
        tensors: from `read_torch_checkpoint`.
        partial: accept tensors that belong to nothing, and parameters without a tensor.
            By default only CBAM parameters may be missing, so that a plain checkpoint
            can start a network with attention added.
        prefix: the one to take, such as "teacher.", where a file holds several
            networks that fit.

    Returns:
        Names that were loaded, missing, unexpected and dropped; print it.

    Raises:
        ValueError: nothing matched, a tensor of another shape, several networks in the
            file that fit and differ, or (unless `partial`) a checkpoint of another
            architecture. The module is then unchanged.

    Example:
        >>> from dex_jax import models
        >>> trained, fresh = (models.backbone("resnet_slim", rngs=s) for s in (0, 1))
        >>> tensors = models.torch_tensors(trained)
        >>> named = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
        >>> named["heads.weight"] = tensors["conv1.weight"]
        >>> report = models.load_torch_weights(fresh, named)
        >>> report.prefix, report.missing, report.dropped
        ('backbone.', (), ('heads.weight',))
    """
    targets = _targets(module)
    fit, names = _find(targets, tensors, prefix)
    inside, outside = _behind(fit.prefix, tensors)
    values = [
        _from_torch(inside[name], name, target, tensors) if name in inside else None
        for target, name in zip(targets, names, strict=True)
    ]
    known = set(names)
    left = sorted(set(inside) - known)
    report = LoadReport(
        fit.dialect,
        tuple(sorted(known & set(inside))),
        tuple(sorted(known - set(inside))),
        tuple(n for n in left if not is_head(n)),
        (*(n for n in left if is_head(n)), *sorted(outside)),
        fit.prefix,
        tuple(_notes(module, fit, outside)),
    )
    if not partial:
        _refuse_other_architecture(report, tensors)
    for target, value in zip(targets, values, strict=True):
        if value is not None and isinstance(target.variable.get_value(), jax.Array):
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

    The file takes its place whole: after an error an older one stands as it was.

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
    with whole_file(path) as partial:
        save_file(contiguous, partial, metadata={"format": "pt"})


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


def _wanted(targets: list[_Target]) -> dict[str, list[str]]:
    """The name of every target in each dialect that is read."""
    dialects = _dialects(targets)
    if dialects is RESNET:
        dialects = RESNET | SEQUENTIAL
    return {
        dialect: [name(t.path, t.position) for t in targets]
        for dialect, name in dialects.items()
    }


def _find(
    targets: list[_Target], tensors: Mapping[str, np.ndarray], prefix: str | None
) -> tuple[Fit, list[str]]:
    """The dialect and prefix that most names follow, and every target's name in it."""
    wanted = _wanted(targets)
    fit = choose(find_fits(wanted, tensors), wanted, tensors, prefix)
    if fit is None:
        raise ValueError(
            f"tensors: none of the {len(tensors)} names belongs to this network; "
            f"the file has {_some(sorted(tensors))}; the network needs "
            f"{_some(sorted(next(iter(wanted.values()))))}. {_nearest(tensors)}"
        )
    return fit, wanted[fit.dialect]


def _behind(
    prefix: str, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors behind a prefix, by the rest of their names; the other names."""
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return inside, [name for name in tensors if not name.startswith(prefix)]


def _notes(module: nnx.Module, fit: Fit, outside: list[str]) -> list[str]:
    """What a framework's own ResNet computes otherwise, which no tensor shows."""
    chain: Any = module.trunk if isinstance(module, PartitionNetwork) else module
    stem = chain.units["stem"]
    if not isinstance(stem, Stem):
        return []
    first = chain.units["layer1_0"]
    plain = isinstance(first.bn1, BatchNorm) and first.se is None
    roots = {name.removeprefix("module.").partition(".")[0] for name in outside}
    notes = []
    of_baseline = fit.prefix.endswith("base.") and "bottleneck" in roots and plain
    if stem.relu and (of_baseline or fit.dialect == "numbered_without_relu"):
        notes.append(
            "note: the plain ResNet of reid-strong-baseline and its descendants has no"
            " ReLU after the stem's batch norm; if the file is from there,"
            " stem_relu=False computes its map"
        )
    of_fast_reid = fit.prefix.endswith("backbone.") and roots & {"heads", "pixel_mean"}
    if stem.pool == "padded" and of_fast_reid and first.se is None:
        notes.append(
            "note: fast-reid's ResNet pools its stem without padding (but for early"
            " versions); if the file is from there, pool='ceil' computes its map"
        )
    return notes


def _from_torch(
    tensor: np.ndarray,
    name: str,
    target: _Target,
    tensors: Mapping[str, np.ndarray],
) -> np.ndarray:
    """A tensor in our layout: OIHW to HWIO, linear (out, in) to a 1 x 1 kernel."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}.get(tensor.ndim)
    value = tensor if axes is None else np.transpose(tensor, axes)
    if tensor.ndim == 2:
        value = value[None, None]
    if value.shape != tuple(target.variable.shape):
        raise ValueError(
            f"tensors: {name} has shape {tensor.shape}, this network needs "
            f"{_torch_shape(target, name)}; the checkpoint is of another architecture. "
            f"{_nearest(tensors)}"
        )
    return value.astype(np.float32)


def _torch_shape(target: _Target, name: str) -> tuple[int, ...]:
    """The shape that PyTorch gives a target."""
    shape = tuple(target.variable.shape)
    if len(shape) < 4:
        return shape
    height, width, inputs, outputs = shape
    linear = "ChannelGate" in name
    return (outputs, inputs) if linear else (outputs, inputs, height, width)


def _to_torch(value: np.ndarray, name: str) -> np.ndarray:
    if value.ndim < 4:
        return value
    if "ChannelGate" in name:
        return value[0, 0].T
    return np.transpose(value, (3, 2, 0, 1))


def _refuse_other_architecture(
    report: LoadReport, tensors: Mapping[str, np.ndarray]
) -> None:
    absent = [name for name in report.missing if "cbam." not in name]
    if absent or report.unexpected:
        behind = f" behind {report.prefix!r}" if report.prefix else ""
        raise ValueError(
            "tensors: the checkpoint is of another architecture "
            f"({len(report.loaded)} tensors fit{behind}). Missing: {_some(absent)}. "
            f"Unexpected: {_some(report.unexpected)}. {_nearest(tensors)}; "
            "partial=True takes what fits all the same"
        )


def _nearest(tensors: Mapping[str, np.ndarray]) -> str:
    """Says which of our backbones a file is for, by names and shapes."""
    best = (0.0, "", 0, 0)
    for name in BACKBONES:
        targets = _targets(backbone(name, rngs=None))
        wanted = _wanted(targets)
        fits = find_fits(wanted, tensors)
        if not fits:
            continue
        inside, _ = _behind(fits[0].prefix, tensors)
        shapes = {
            each: _torch_shape(target, each)
            for each, target in zip(wanted[fits[0].dialect], targets, strict=True)
        }
        fitting = sum(
            each in inside and inside[each].shape == shape
            for each, shape in shapes.items()
        )
        held = len(set(shapes) | {each for each in inside if not is_head(each)})
        best = max(best, (fitting / held, name, fitting, held))
    share, name, fitting, held = best
    if share == 1:
        return f"The file fits {name!r}"
    if share > 0.5:
        return f"Nearest is {name!r}: {fitting} of {held} tensors are the same"
    return f"None of our backbones ({', '.join(BACKBONES)}) is near"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return (f"{shown}, ..." if len(names) > 4 else shown) or "none"
