"""A network taken apart for pure functions: its structure and its values."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from dex_jax import models
from dex_jax.models import parts as layouts


class Network(NamedTuple):
    """A network taken apart: its structure and its two kinds of values."""

    graphdef: Any  # static structure
    params: Any  # nested dict, trained
    stats: Any  # nested dict, running statistics of batch norm
    parts: layouts.Layout  # which P parts there are
    channels: int  # of the feature map that the parts are cut from
    stride: int  # pixels of the image to one of the feature map


def build_network(
    name: str, *, num_classes: int, seed: int | None, **options: Any
) -> Network:
    """Builds a partition network and takes it apart for pure functions.

    Args:
        name: of the backbone, see `dex_jax.models`.
        num_classes: C, identities to classify.
        seed: of the random weights; None leaves shapes in their place.
        **options: of `dex_jax.models.build`.

    Returns:
        The network; `params` and `stats` are nested dicts of float32 arrays.

    Raises:
        ValueError: what `dex_jax.models.build` refuses.

    Example:
        >>> network = build_network("resnet_slim", num_classes=5, seed=None, dim=8,
        ...                         trunk_split="none")
        >>> network.parts.num_parts
        17
    """
    model = models.build(name, num_classes=num_classes, rngs=seed, **options)
    return Network(*models.split(model), model.parts, model.channels, model.stride)


def load_pretrained(network: Network, path: str | Path) -> tuple[Network, str]:
    """Puts a PyTorch checkpoint's weights into the backbone.

    Args:
        network: fresh from `build_network`; one without values is only checked.
        path: a `.pth` or `.safetensors` file; read without running code from it.

    Returns:
        The network with these weights, and a report of what was loaded.

    Raises:
        FileNotFoundError, ValueError: no such file, or weights of another network.
    """
    model = models.merge(network.graphdef, network.params, network.stats)
    tensors = models.read_torch_checkpoint(path)
    try:
        report = models.load_torch_weights(model, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    graphdef, params, stats = models.split(model)
    loaded = network._replace(graphdef=graphdef, params=params, stats=stats)
    _, *more = str(report).splitlines()
    first = (
        f"{Path(path).name}: {len(report.loaded)} tensors loaded by the names of "
        f"{report.dialect}, {len(report.missing)} missing, "
        f"{len(report.unexpected)} left over"
    )
    return loaded, "\n".join([first, *more])


def check_image_size(network: Network, image_size: int) -> None:
    """Refuses images whose feature map is too small for its parts.

    Raises:
        ValueError: names the image size and the branch that does not fit.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    try:
        jax.eval_shape(
            functools.partial(describe_images, network.graphdef),
            network.params,
            network.stats,
            images,
        )
    except ValueError as error:
        raise ValueError(f"image_size: {image_size} is too small; {error}") from error


def describe_images(
    graphdef: Any, params: Any, stats: Any, images: jax.Array
) -> jax.Array:
    """Descriptors `[B, P * D]` of normalised images `[B, H, W, 3]`, unit length.

    The 17 embeddings before their batch norms, one L2 norm over all (paper, section
    3.1).
    """
    (embeddings, _), _ = models.apply(graphdef, params, stats, images, train=False)
    return layouts.descriptor(embeddings)


def describer(graphdef: Any) -> Callable[[Any, Any], Partial]:
    """Makes `(params, stats) -> apply`, the `apply` of `dex_jax.evaluation`.

    The weights travel as arguments of the compiled program, not as its constants, so
    that all states of one network share one compilation.
    """
    fixed = functools.partial(describe_images, graphdef)
    return lambda params, stats: Partial(fixed, params, stats)


def count(tree: Any) -> int:
    """How many numbers a pytree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
