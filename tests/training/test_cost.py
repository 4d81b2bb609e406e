"""What a step takes, as the compiler counts it."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dex_jax import training

pytestmark = pytest.mark.usefixtures("quick_programs")


def test_cost_counts_operations_and_memory():
    """Of a step that is a product of matrices; a real one is costed by `--dry_run`."""

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        pixels = images.reshape(len(labels), -1).astype(jnp.float32)  # [B, S * S * 3]
        return pixels.T @ pixels + state, {}

    values = 32 * 32 * 3
    state: Any = jax.ShapeDtypeStruct((values, values), jnp.float32)
    cost = training.cost(step, state, batch_size=8, image_size=32)
    assert cost.operations == pytest.approx(2 * 8 * values**2, rel=0.1)
    assert 4 * values**2 <= cost.memory < 8 * 4 * values**2
    assert cost.rate > 0
