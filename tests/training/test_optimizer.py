"""The optimizer and its learning rate (paper, section 4.2)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dex_jax import training

pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.mark.quick
def test_exponential_schedule_is_the_papers():
    rate = training.learning_rate(steps_per_epoch=66)
    assert float(np.asarray(rate(0))) == pytest.approx(2e-4)
    assert float(np.asarray(rate(65))) == pytest.approx(
        2e-4
    )  # held within the first epoch
    assert float(np.asarray(rate(66))) == pytest.approx(2e-4 * np.exp(-0.01))
    assert float(np.asarray(rate(66 * 499))) == pytest.approx(
        2e-4 * np.exp(-4.99), rel=1e-5
    )


@pytest.mark.quick
def test_warm_up_then_cosine_ends_at_zero():
    rate = training.learning_rate(
        learning_rate=1.0,
        schedule="cosine",
        warmup_epochs=1,
        epochs=11,
        steps_per_epoch=10,
    )
    assert float(np.asarray(rate(0))) == pytest.approx(0.01)
    assert float(np.asarray(rate(10))) == pytest.approx(1.0)
    assert float(np.asarray(rate(60))) == pytest.approx(0.5)
    assert float(np.asarray(rate(110))) == pytest.approx(0.0, abs=1e-7)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="schedule: expected 'exponential'"):
        training.learning_rate(schedule="step")
    with pytest.raises(ValueError, match="name: expected 'adam' or 'adamw'"):
        training.optimizer(optax.constant_schedule(1.0), name="sgd")
    with pytest.raises(ValueError, match=r"weight_decay: 0\.1 has no effect"):
        training.optimizer(optax.constant_schedule(1.0), weight_decay=0.1)


def test_weight_decay_spares_vectors():
    transform = training.optimizer(
        optax.constant_schedule(1.0), name="adamw", weight_decay=0.5
    )
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transform.update(zero, transform.init(params), params)
    chex.assert_trees_all_close(
        updates, {"kernel": jnp.full((2, 2), -0.5), "bias": jnp.zeros(2)}
    )
