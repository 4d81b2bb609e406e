"""From a name to a network."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from dex_jax._checks import check_choice, check_count
from dex_jax.models._chain import Chain, Plan
from dex_jax.models._efficientnet import efficientnet_plan
from dex_jax.models._partition import PartitionNetwork
from dex_jax.models._resnet import resnet_plan
from dex_jax.models._start import initialise
from dex_jax.models.parts import PAPER, Cuts, layout

_WIDTH_DEPTH = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4)}

BACKBONES: dict[str, Callable[..., Plan]] = {
    "resnet50": resnet_plan,
    "resnet50_cbam": partial(resnet_plan, cbam="blocks"),
    "resnet50_ibn_a": partial(resnet_plan, ibn=True),
    "resnet50_ibn_a_cbam": partial(resnet_plan, ibn=True, cbam="blocks"),
    "se_resnext50": partial(
        resnet_plan, squeeze=True, groups=32, group_width=4, pool="ceil"
    ),
    "resnet_slim": partial(resnet_plan, width=16, blocks=(1, 1, 1, 1), ibn=True),
    **{
        f"efficientnet_{size}": partial(efficientnet_plan, width=width, depth=depth)
        for size, (width, depth) in _WIDTH_DEPTH.items()
    },
    "efficientnet_lite0": partial(efficientnet_plan, lite=True),
}


def backbone(
    name: str,
    *,
    last_stride: int = 1,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs | int | None = 0,
    **options: Any,
) -> Chain:
    """Makes a backbone: images `[B, H, W, 3]` to a feature map `[B, h, w, C]`.

    The networks of the paper (section 4.2) without their classifiers. It comes in
    evaluation mode (running statistics); `nnx.view(module, use_running_average=False)`
    is the same network in training mode, sharing its variables.

    Args:
        name: one of `BACKBONES`.
        last_stride: stride of the last stage: 1 keeps the final map at a sixteenth of
            the image, as is the habit in re-identification; 2 is the ImageNet network.
        dtype: type of the arithmetic, such as `jnp.bfloat16`; parameters and statistics
            stay float32. None: the type of the images.
        rngs: `nnx.Rngs` or a seed; equal seeds give equal values on every device. None
            leaves the module abstract (shapes alone).
        **options: of the family. ResNets: `cbam` ("blocks", "last", "none"), `pool`
            ("padded", "ceil", "none"), `stem_relu`, `width`, `blocks`. EfficientNets:
            `stochastic_depth`, a rate; their training then needs a random `key`.

    Returns:
        A Flax NNX module.

    Raises:
        ValueError: an unknown name or option, or a value out of range.

    Example:
        >>> import jax
        >>> trunk = backbone("resnet_slim", width=4, rngs=0)
        >>> jax.jit(trunk)(jax.numpy.zeros((1, 64, 64, 3))).shape
        (1, 4, 4, 128)
    """
    plan = _plan(name, last_stride, dtype, options)
    return initialise(lambda: Chain(plan.units), rngs)


def build(
    name: str,
    *,
    num_classes: int,
    parts: tuple[Cuts, ...] = PAPER,
    trunk_split: str = "stage3.1",
    dim: int = 256,
    last_stride: int = 1,
    expected_parts: int | None = None,
    dtype: DTypeLike | None = None,
    pooling: str = "max",
    classifier: str = "linear",
    remat: bool = False,
    rngs: nnx.Rngs | int | None = 0,
    **options: Any,
) -> PartitionNetwork:
    """Makes the partition network of the paper (section 3.1).

    Backbone, one branch for each entry of `parts`, every branch cut into local parts
    beside one global part, global max pool, and a linear layer with bias to `dim`
    values: the part's embedding, which the triplet loss sees and which is the feature
    at test. A batch norm with its bias fixed at 0 and a linear classifier without bias
    follow for the cross-entropy. The paper gives the size 17 x 256 of the descriptor
    but neither the cuts nor the place where branches part; both are options. The
    default cuts are the only three branches with cuts in two (channels) and three
    (height or width) that treat height and width alike.

    The module comes in evaluation mode, `nnx.view(module, use_running_average=False)`
    is its training mode. In a training loop, split it once and stay with plain nested
    dictionaries of arrays, which optimizers and checkpoints take as they are::

        graphdef, params, stats = models.split(network)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, stats, images, labels):
            def loss(params):
                (embeddings, logits), new = models.apply(
                    graphdef, params, stats, images, train=True
                )
                return total_loss(embeddings, logits, labels), new

            (value, stats_), grads = jax.value_and_grad(loss, has_aux=True)(params)
            ...

    Args:
        name: one of `BACKBONES`.
        num_classes: C, number of training identities.
        parts: cuts `(channel, height, width)` of each branch; see `models.parts`.
        trunk_split: "stage3.1": each branch has its own copy of the ResNet from the
            second block of stage 3 on; "stage4": from stage 4 on; "none": only the
            linear layers are per part (the only choice for EfficientNets).
        dim: size of one part's embedding.
        last_stride: as for `backbone`.
        expected_parts: refuse a layout with another number of parts.
        dtype: as for `backbone`; linear layers and batch norms of the parts are always
            float32.
        pooling: "max" (the paper's) or "gem": the generalised mean with a power for
            each branch, learned from 3 on.
        classifier: "linear", or "cosine": logits are the cosines between a part's
            batch-normalised embedding and the class's weights, as an angular margin
            wants them.
        remat: gradients compute the inside of each block again rather than keep it:
            far less memory for one more forward pass; values stay the same.
        rngs: as for `backbone`.
        **options: as for `backbone`.

    Returns:
        A Flax NNX module: `module(images [B, H, W, 3])` gives embeddings
        `[B, P, dim]` and logits `[B, P, C]`; `module.parts` is the layout. The order of
        P is that of `models.parts.descriptor`: all local parts, then the globals.

    Raises:
        ValueError: an unknown name or option, cuts that do not divide the channels, a
            split that the backbone does not have, another number of parts; when called,
            images whose feature map is smaller than its cuts.

    Example:
        >>> import jax
        >>> network = build(
        ...     "resnet_slim", num_classes=10, trunk_split="none", dim=8, width=4
        ... )
        >>> images = jax.numpy.zeros((2, 64, 64, 3))
        >>> embeddings, logits = jax.jit(network)(images)
        >>> embeddings.shape, logits.shape
        ((2, 17, 8), (2, 17, 10))
    """
    check_count(num_classes, "num_classes", least=2)
    check_count(dim, "dim")
    check_choice(pooling, "pooling", ("max", "gem"))
    check_choice(classifier, "classifier", ("linear", "cosine"))
    plan = _plan(name, last_stride, dtype, options)
    cuts = layout(parts, expected_parts=expected_parts)
    return initialise(
        lambda: PartitionNetwork(
            plan,
            cuts,
            num_classes=num_classes,
            dim=dim,
            trunk_split=trunk_split,
            pooling=pooling,
            classifier=classifier,
            remat=remat,
        ),
        rngs,
    )


def _plan(
    name: str,
    last_stride: int,
    dtype: DTypeLike | None,
    options: dict[str, Any],
) -> Plan:
    make = BACKBONES[check_choice(name, "name", tuple(BACKBONES))]
    known = sorted(set(inspect.signature(make).parameters) - {"last_stride", "dtype"})
    for option in options:
        if option not in known:
            raise ValueError(
                f"{option}: not an option of {name!r}, which takes {', '.join(known)}"
            )
    return make(last_stride=last_stride, dtype=dtype, **options)
