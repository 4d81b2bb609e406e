"""The networks of the paper at full size as shapes, and a small one of each kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import losses, models
from tests.models.golden_networks import QUICK_COMPILE

SPLIT = {
    "resnet50": "stage3.1",
    "resnet50_cbam": "stage3.1",
    "resnet50_ibn_a": "stage3.1",
    "resnet50_ibn_a_cbam": "stage3.1",
    "se_resnext50": "stage3.1",
    "efficientnet_b0": "none",
    "efficientnet_b1": "none",
    "efficientnet_b2": "none",
    "efficientnet_b3": "none",
}


def _loss(graphdef, stats, params, images, labels):
    (embeddings, logits), stats = models.apply(
        graphdef, params, stats, images, train=True
    )
    ce = jax.vmap(losses.label_smoothed_cross_entropy, (1, None))(logits, labels)
    triplet = jax.vmap(losses.batch_hard_triplet, (1, None))(embeddings, labels)
    return 2 * jnp.mean(ce) + jnp.mean(triplet), (embeddings, logits, stats)


@pytest.mark.parametrize("name", SPLIT)
def test_full_size_gradient_as_shapes(name: str):
    network = models.build(
        name,
        num_classes=333,
        trunk_split=SPLIT[name],
        expected_parts=17,
        dtype=jnp.bfloat16,
        rngs=None,
    )
    graphdef, params, stats = models.split(network)
    images = jax.ShapeDtypeStruct((32, 288, 288, 3), jnp.float32)
    gradient = jax.grad(_loss, argnums=2, has_aux=True)
    gradients, (embeddings, logits, after) = jax.eval_shape(
        functools.partial(gradient, graphdef),
        stats,
        params,
        images,
        jax.ShapeDtypeStruct((32,), jnp.int32),
    )
    assert embeddings.shape == (32, 17, 256)
    assert logits.shape == (32, 17, 333)
    assert network.stride == 16

    def check(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)

    jax.tree.map(check, gradients, params)
    jax.tree.map(check, after, stats)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50_ibn_a_cbam", {"width": 4, "blocks": (1, 1, 2, 1)}),
        ("se_resnext50", {"width": 16, "blocks": (1, 1, 1, 1)}),
        ("efficientnet_b1", {"width": 0.25, "depth": 0.2, "stochastic_depth": 0.0}),
    ],
)
def test_small_relatives_learn_in_one_step(name: str, options, rng):
    split = "none" if name != "resnet50_ibn_a_cbam" else SPLIT[name]
    network = models.build(name, num_classes=4, dim=8, trunk_split=split, **options)
    graphdef, params, stats = models.split(network)
    images = jnp.asarray(rng.normal(size=(8, 48, 48, 3)), jnp.float32)
    labels = jnp.repeat(jnp.arange(4), 2)

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
    def step(params):
        loss = functools.partial(_loss, graphdef, stats)
        (value, _), gradients = jax.value_and_grad(loss, has_aux=True)(
            params, images, labels
        )
        moved = jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradients)
        return moved, value, gradients

    moved, first, gradients = step(params)
    named = {
        "/".join(str(key.key) for key in path): np.asarray(gradient)
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients)
    }
    assert not [name for name, g in named.items() if not np.isfinite(g).all()]
    _, second, _ = step(moved)
    assert second < first
    silent = [name for name, g in named.items() if not g.any()]
    # A spatial gate that starts at scale 0 passes no gradient to its convolution.
    assert all("cbam/conv" in name for name in silent), silent
