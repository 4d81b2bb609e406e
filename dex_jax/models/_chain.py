"""A backbone is a chain of named units; a trunk and its branches are pieces of one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

Unit = tuple[str, Callable[[], nnx.Module]]


class Plan(NamedTuple):
    """What a backbone is made of, before any of it is made."""

    units: tuple[Unit, ...]
    """Name and constructor of every unit, in order: stem, layer1_0, ..., layer4_2."""
    channels: int
    """Channels of the last feature map."""
    stride: int
    """Image pixels to one pixel of the last feature map."""


class Chain(nnx.Module):
    """Units called one after another; each is reached as `chain.units[name]`.

    Units are kept under string names rather than in a list, so that the state is a
    nested dictionary with string keys alone and passes through any checkpoint format.
    With `remat`, a gradient keeps only what passes between units and computes the
    inside of each again: far less memory, one more forward pass.
    """

    def __init__(self, units: Sequence[Unit], *, remat: bool = False):
        self.remat = remat
        self.order = tuple(name for name, _ in units)
        self.units = nnx.Dict({name: make() for name, make in units})

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps images `[B, H, W, 3]` (or an earlier piece's map) to `[B, h, w, C]`.

        Args:
            x: NHWC, floating.
            key: random key, needed by stochastic depth in training alone.
        """
        call = nnx.remat(_call) if self.remat else _call
        for name in self.order:
            unit, own = self.units[name], None
            if key is not None and getattr(unit, "is_random", False):
                key, own = jax.random.split(key)
            x = call(unit, x, own)
        return x


def _call(unit: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
    return unit(x, key=key) if getattr(unit, "is_random", False) else unit(x)


def check_images(x: jax.Array) -> None:
    """Refuses what is not a batch of colour images in NHWC."""
    if x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape:
        raise ValueError(f"images: expected [B, H, W, 3], got shape {x.shape}")
    if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
        raise ValueError(
            f"images: expected normalised floating values, got dtype {x.dtype}"
        )
