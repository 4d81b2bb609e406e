"""A network as a pure function of nested dictionaries of arrays."""

from typing import Any

import jax
from flax import nnx

Tree = dict[str, Any]


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Takes a network apart into structure, parameters and running statistics.

    Args:
        module: from `backbone` or `build`.

    Returns:
        `graphdef` (static, hashable), `params` and `stats`: nested dictionaries with
        string keys and arrays as leaves, which `jax.jit`, optax and Orbax take as they
        are. `merge` is the way back.

    Example:
        >>> from dex_jax import models
        >>> graphdef, params, stats = models.split(models.backbone("resnet_slim"))
        >>> sorted(params["units"]["stem"])
        ['bn1', 'conv1']
    """
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge(graphdef: nnx.GraphDef, params: Tree, stats: Tree) -> Any:
    """Puts a network together again; the inverse of `split`.

    Args:
        graphdef: from `split`.
        params: parameters, as `split` returns them.
        stats: running statistics, as `split` returns them.

    Returns:
        A module that holds these arrays.

    Example:
        >>> from dex_jax import models
        >>> module = models.merge(*models.split(models.backbone("resnet_slim")))
        >>> type(module).__name__
        'Chain'
    """
    return nnx.merge(graphdef, params, stats, copy=True)


def apply(
    graphdef: nnx.GraphDef,
    params: Tree,
    stats: Tree,
    images: jax.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
) -> tuple[Any, Tree]:
    """Runs a network as a pure function, for use under `jax.jit` and `jax.grad`.

    Args:
        graphdef: from `split`.
        params: parameters.
        stats: running statistics of the batch norms.
        images: `[B, H, W, 3]`, normalised, floating.
        train: True normalises with the statistics of this batch and returns updated
            running ones; False uses the running ones and returns them unchanged.
        key: random key for stochastic depth; needed only where the network has it and
            `train` is True.

    Returns:
        What the module returns (`(embeddings, logits)` for `build`, the feature map for
        `backbone`), and the new running statistics.

    Example:
        >>> import jax
        >>> from dex_jax import models
        >>> graphdef, *state = models.split(models.backbone("resnet_slim", width=4))
        >>> run = jax.jit(models.apply, static_argnums=0, static_argnames="train")
        >>> images = jax.numpy.zeros((1, 32, 32, 3))
        >>> features, stats = run(graphdef, *state, images, train=False)
        >>> features.shape
        (1, 2, 2, 128)
    """
    # Without the copy, updating a batch norm inside a gradient is a trace error.
    module = nnx.merge(graphdef, params, stats, copy=True)
    module = nnx.view(module, use_running_average=not train)
    result = module(images, key=key)
    return result, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
