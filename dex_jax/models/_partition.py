"""The partition network: one trunk, branches cut into parts, one embedding a part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from dex_jax.models._chain import Chain, Plan
from dex_jax.models._layers import BatchNorm, constant, normal, widen
from dex_jax.models.parts import Layout, pool

# The first unit that every branch has its own copy of.
TRUNK_SPLITS = {"stage3.1": "layer3_1", "stage4": "layer4_0", "none": None}


class PartitionNetwork(nnx.Module):
    """Images to one embedding and one row of class logits for each part."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        *,
        num_classes: int,
        dim: int,
        trunk_split: str,
        pooling: str = "max",
        classifier: str = "linear",
        remat: bool = False,
    ):
        cut = _cut(plan, trunk_split)
        self.parts = layout
        self.channels = plan.channels
        self.stride = plan.stride
        self.trunk = Chain(plan.units[:cut], remat=remat)
        self.branches = nnx.Dict(
            {
                f"branch{index + 1}": Chain(plan.units[cut:], remat=remat)
                for index in range(layout.num_global if cut < len(plan.units) else 0)
            }
        )
        gem = pooling == "gem"
        self.power = constant((layout.num_global,), 3.0) if gem else None
        self.embed = PartEmbedding(layout.widths(plan.channels), dim)
        self.neck = BatchNorm((layout.num_parts, dim), use_bias=False)
        self.cosine = classifier == "cosine"
        self.classifier = normal((layout.num_parts, dim, num_classes), 0.001)

    def __call__(
        self, images: jax.Array, *, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, 3]` to embeddings `[B, P, dim]` and logits `[B, P, C]`."""
        shared = self.trunk(images, key=key)
        maps = [shared] * self.parts.num_global
        if self.branches:
            names = (f"branch{index + 1}" for index in range(len(maps)))
            maps = [self.branches[name](shared, key=key) for name in names]
        power = None if self.power is None else self.power[...]
        pooled = [
            pool(
                feature_map,
                cuts,
                branch=branch,
                power=None if power is None else power[branch],
            )
            for branch, (feature_map, cuts) in enumerate(
                zip(maps, self.parts.branches, strict=True)
            )
        ]
        local = [part for parts in pooled for part in parts[:-1]]
        embeddings = self.embed([*local, *[parts[-1] for parts in pooled]])
        features = self.neck(embeddings)
        weights = self.classifier[...]
        if self.cosine:
            features, weights = _unit(features, axis=2), _unit(weights, axis=1)
        logits = jnp.einsum("bpd,pdc->bpc", features, weights)
        return embeddings, logits


class PartEmbedding(nnx.Module):
    """One linear layer a part; parts of one input width make one batched product.

    Pooled vectors are widened to float32 first: heads and losses never run in bfloat16.
    """

    def __init__(self, widths: Sequence[int], dim: int):
        self.widths = tuple(widths)
        self.kernels = nnx.Dict(
            {
                f"width{width}": normal(
                    (self.widths.count(width), width, dim), (2 / dim) ** 0.5
                )
                for width in sorted(set(self.widths))
            }
        )
        self.bias = constant((len(self.widths), dim), 0.0)

    def __call__(self, pooled: Sequence[jax.Array]) -> jax.Array:
        rows: dict[int, jax.Array] = {}
        for width in sorted(set(self.widths)):
            members = [p for p, own in enumerate(self.widths) if own == width]
            x = jnp.stack([widen(pooled[p]) for p in members], axis=1)
            y = jnp.einsum("bpc,pcd->bpd", x, self.kernels[f"width{width}"][...])
            rows |= {p: y[:, index] for index, p in enumerate(members)}
        stacked = jnp.stack([rows[p] for p in range(len(self.widths))], axis=1)
        return stacked + self.bias[...][None]


def _unit(x: jax.Array, *, axis: int) -> jax.Array:
    """Vectors along an axis at length 1; a zero vector stays zero."""
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 1e-24, square, 1e-24))


def _cut(plan: Plan, trunk_split: str) -> int:
    """Index of the first unit that branches do not share."""
    names = [name for name, _ in plan.units]
    possible = {
        word: len(names) if unit is None else names.index(unit)
        for word, unit in TRUNK_SPLITS.items()
        if unit is None or unit in names
    }
    if trunk_split not in possible:
        allowed = ", ".join(repr(word) for word in possible)
        raise ValueError(
            f"trunk_split: this backbone can be split at {allowed}, got {trunk_split!r}"
        )
    return possible[trunk_split]
