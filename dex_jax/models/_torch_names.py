"""What a parameter is called in the public PyTorch implementations.

A dialect turns the path of a variable inside a `Chain`, with the position of its unit,
into its PyTorch name. A file's dialect is the one that most of its names belong to.
"""

import re
from collections.abc import Callable
from functools import partial

Path = tuple[str, ...]
Dialect = Callable[[Path, int], str]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# What stands behind a backbone, by the first part of its name: classifiers, embeddings
# and their batch norms, losses that learn, the image's mean. None of them changes the
# feature map.
HEADS = re.compile(
    r"_?fc\d*|last_linear|\w*classif\w*|logits|heads?\w*|bottleneck\w*|bn_?neck\w*"
    r"|feat|feat_\w+|feature_bn|embed\w*|reduction\w*|gem\w*|\w*pool\w*"
    r"|pixel_mean|pixel_std|criterion\w*|\w*loss\w*|centers?|memory|queue\w*"
)
COUNTER = "num_batches_tracked"


def is_head(name: str) -> bool:
    """Whether a tensor belongs behind a backbone, or is a counter of batches."""
    first = name.partition(".")[0]
    return name.endswith(COUNTER) or bool(len(first) < 100 and HEADS.fullmatch(first))


CBAM = {
    ("cbam", "fc1"): "cbam.ChannelGate.mlp.1",
    ("cbam", "fc2"): "cbam.ChannelGate.mlp.3",
    ("cbam", "conv"): "cbam.SpatialGate.spatial.conv",
    ("cbam", "bn"): "cbam.SpatialGate.spatial.bn",
}


def _resnet(path: Path, *, stem: str, se: str) -> str:
    """Names of torchvision; those of others differ in `stem` and `se`."""
    unit, inner, leaf = path[0], path[1:-1], LEAVES[path[-1]]
    if unit == "cbam":
        return f"{CBAM['cbam', inner[0]]}.{leaf}"
    if unit == "stem":
        return f"{stem}{'.'.join(inner)}.{leaf}"
    if inner[0] == "downsample":
        inner = ("downsample", {"conv": "0", "bn": "1"}[inner[1]])
    elif inner[0] == "se":
        inner = (se, *inner[1:])
    elif inner[0] == "cbam":
        inner = (CBAM["cbam", inner[1]],)
    return ".".join([unit.replace("_", "."), *inner, leaf])


def torchvision(path: Path, position: int) -> str:
    """torchvision, IBN-Net, attention-module, and timm's ResNets and SE-ResNeXts."""
    return _resnet(path, stem="", se="se")


def cadene(path: Path, position: int) -> str:
    """Cadene's SE networks (and timm's `legacy_` ones)."""
    return _resnet(path, stem="layer0.", se="se_module")


def numbered(path: Path, position: int, *, first: int) -> str:
    """A ResNet as an `nn.Sequential`, whose stages begin with number `first`."""
    unit, _, rest = torchvision(path, position).partition(".")
    stem = {"conv1": "0", "bn1": "1"}
    if unit.startswith("layer"):
        return f"{int(unit.removeprefix('layer')) - 1 + first}.{rest}"
    return f"{stem.get(unit, unit)}.{rest}"


LUKEMELAS = {
    "conv": "_conv_stem",
    "bn": "_bn0",
    "expand": "_expand_conv",
    "bn0": "_bn0",
    "depthwise": "_depthwise_conv",
    "bn1": "_bn1",
    "se.fc1": "_se_reduce",
    "se.fc2": "_se_expand",
    "project": "_project_conv",
    "bn2": "_bn2",
}

TIMM = {
    "expand": "conv_pw",
    "bn0": "bn1",
    "depthwise": "conv_dw",
    "bn1": "bn2",
    "se.fc1": "se.conv_reduce",
    "se.fc2": "se.conv_expand",
    "project": "conv_pwl",
    "bn2": "bn3",
}

# Without an expansion, timm calls the projection conv_pw and counts from bn1.
TIMM_FIRST = TIMM | {"bn1": "bn1", "project": "conv_pw", "bn2": "bn2"}


def lukemelas(path: Path, position: int) -> str:
    """EfficientNet-PyTorch: blocks are numbered through all stages."""
    unit, inner, leaf = path[0], ".".join(path[1:-1]), LEAVES[path[-1]]
    if unit == "head":
        return f"{'_bn1' if inner == 'bn' else '_conv_head'}.{leaf}"
    if unit == "stem":
        return f"{LUKEMELAS[inner]}.{leaf}"
    return f"_blocks.{position - 1}.{LUKEMELAS[inner]}.{leaf}"


def timm_efficientnet(path: Path, position: int) -> str:
    """The `tf_efficientnet` models of timm: blocks are numbered within a stage."""
    unit, inner, leaf = path[0], ".".join(path[1:-1]), LEAVES[path[-1]]
    if unit in ("stem", "head"):
        names = {"stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2")}[unit]
        return f"{names[inner == 'bn']}.{leaf}"
    stage, block = unit.removeprefix("stage").split("_")
    names = TIMM_FIRST if stage == "1" else TIMM
    return f"blocks.{int(stage) - 1}.{block}.{names[inner]}.{leaf}"


RESNET: dict[str, Dialect] = {"torchvision": torchvision, "cadene": cadene}
EFFICIENTNET: dict[str, Dialect] = {"lukemelas": lukemelas, "timm": timm_efficientnet}

# Read but not written: a stem of conv, norm, ReLU, pool, and one without the ReLU.
SEQUENTIAL: dict[str, Dialect] = {
    "numbered": partial(numbered, first=4),
    "numbered_without_relu": partial(numbered, first=3),
}
