"""Training in a program whose 64-bit mode is on: the same numbers as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import models, training
from tests.training.test_step import make_step, short_network

# Steps are compiled: on one worker, together with those of the same networks.
pytestmark = [
    pytest.mark.xdist_group("training"),
    pytest.mark.usefixtures("quick_programs"),
]

NETWORKS = (
    "resnet50",
    "resnet50_cbam",
    "resnet50_ibn_a",
    "se_resnext50",
    "efficientnet_b1",
)


def _types(tree: object) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def test_a_step_is_the_same():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(4, dtype=np.int32), 2)

    def one_step() -> tuple[training.TrainState, training.Metrics]:
        step, state = make_step(short_network(), average=0.9)
        return jax.jit(step)(state, jnp.asarray(images), jnp.asarray(labels))

    wanted, figures = one_step()
    with jax.enable_x64(True):
        found, again = one_step()
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(
        lambda x: x.dtype, wanted
    )
    assert _types(again) == {"float32"}
    # The same augmentation, the same batch: figures differ by rounding alone.
    for name, value in figures.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-5, err_msg=name)
    for one, other in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(wanted.params), strict=True
    ):
        # Adam divides by the size of the gradient: tiny ones may change their sign.
        np.testing.assert_allclose(one, other, atol=2.1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_their_states_are_float32(name):
    """A state of shapes is what a checkpoint is read into: float64 would not fit it."""
    with jax.enable_x64(True):
        network = training.build_network(
            name, num_classes=5, seed=None, trunk_split="none"
        )
        state = training.init_state(
            network, training.optimizer(lambda step: 1e-3), average=0.9
        )
        assert _types(state) == {"float32", "int32"}
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
        for train in (False, True):
            outputs = jax.eval_shape(
                lambda p, s, x, key, train=train: models.apply(
                    network.graphdef, p, s, x, train=train, key=key
                ),
                network.params,
                network.stats,
                images,
                jax.random.key(0),
            )
            assert _types(outputs) == {"float32"}


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_learning_rates_are_the_same(schedule, warmup_epochs):
    def rates() -> list[float]:
        rate = training.learning_rate(
            schedule=schedule,
            steps_per_epoch=3,
            epochs=9,
            warmup_epochs=warmup_epochs,
        )
        steps = jnp.arange(20, dtype=jnp.int32)
        return [np.asarray(rate(step)).item() for step in steps]

    wanted = rates()
    with jax.enable_x64(True):
        np.testing.assert_allclose(rates(), wanted, rtol=1e-6)
