"""The networks of the paper at full size, as shapes."""

import functools

import jax
import jax.numpy as jnp
import pytest

from dex_jax import losses, models

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
