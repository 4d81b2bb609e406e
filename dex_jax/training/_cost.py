"""What one training step takes, read from the compiled program."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dex_jax.training._mesh import compiler_options
from dex_jax.training._step import Step, TrainState


class Cost(NamedTuple):
    """What one training step needs."""

    operations: float  # floating-point operations
    memory: float  # bytes at the peak
    rate: float  # operations a second of a large matrix product here


def cost(step: Step, state: TrainState, *, batch_size: int, image_size: int) -> Cost:
    """Compiles a step and reads what the compiler knows of it.

    Args:
        step: from `train_step`.
        state: its state, or the shapes of it.
        batch_size: B.
        image_size: S, in pixels.
    """
    shape = (batch_size, image_size, image_size, 3)
    compiled = (
        jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
        .lower(
            state,
            jax.ShapeDtypeStruct(shape, jnp.uint8),
            jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        )
        .compile()
    )
    sizes, work = compiled.memory_analysis(), compiled.cost_analysis()
    peak = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes if sizes else 0
    return Cost((work or {}).get("flops", 0.0), float(peak), _matrix_product_rate())


def _matrix_product_rate(n: int = 2048) -> float:
    product = jax.jit(lambda x: x @ x)
    x = jnp.ones((n, n), jnp.float32)
    product(x).block_until_ready()
    begin = time.perf_counter()
    product(x).block_until_ready()
    return 2 * n**3 / (time.perf_counter() - begin)
