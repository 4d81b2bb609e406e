"""The optimizer and its learning rate: optax, with the paper's values as defaults."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def learning_rate(
    *,
    learning_rate: float = 2e-4,
    schedule: str = "exponential",
    decay: float = 0.01,
    warmup_epochs: float = 0.0,
    epochs: int = 500,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    """The learning rate of each step (paper, section 4.2).

    Args:
        learning_rate: the highest value.
        schedule: "exponential": times exp(-decay * t), t the epoch, held within an
            epoch; "cosine": down to zero over all epochs; "constant".
        decay: of the exponential schedule, per epoch.
        warmup_epochs: linear rise from a hundredth, before the schedule.
        epochs: in the run.
        steps_per_epoch: updates in one epoch.

    Returns:
        step -> learning rate.

    Raises:
        ValueError: an unknown schedule.

    Example:
        >>> rate = learning_rate(steps_per_epoch=10)
        >>> round(float(rate(0)), 7), round(float(rate(19) / rate(0)), 4)
        (0.0002, 0.99)
    """
    warm = round(warmup_epochs * steps_per_epoch)

    def exponential(step: Any) -> jax.Array:
        epoch = jnp.floor_divide(step, steps_per_epoch).astype(jnp.float32)
        return learning_rate * jnp.exp(-decay * epoch)

    after: optax.Schedule
    if schedule == "exponential":
        after = exponential
    elif schedule == "cosine":
        left = max(epochs * steps_per_epoch - warm, 1)
        after = optax.cosine_decay_schedule(learning_rate, left)
    elif schedule == "constant":
        after = optax.constant_schedule(learning_rate)
    else:
        raise ValueError(
            "schedule: expected 'exponential', 'cosine' or 'constant', got "
            f"{schedule!r}"
        )
    if not warm:
        return after
    rise = optax.linear_schedule(learning_rate / 100, learning_rate, warm)
    return optax.join_schedules([rise, after], [warm])


def optimizer(
    schedule: optax.Schedule,
    *,
    name: str = "adam",
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Adam as in the paper, or AdamW, with optional clipping of the gradient.

    Args:
        schedule: step -> learning rate.
        name: "adam" or "adamw".
        weight_decay: of "adamw", on kernels alone (no bias, no batch-norm scale).
        clip_norm: largest norm of the whole gradient; 0 leaves it as it is.

    Raises:
        ValueError: an unknown name, or weight decay asked of plain Adam.
    """
    if name == "adam":
        if weight_decay:
            raise ValueError(
                f"weight_decay: {weight_decay} has no effect on 'adam'; take 'adamw'"
            )
        core = optax.adam(schedule)
    elif name == "adamw":
        core = optax.adamw(schedule, weight_decay=weight_decay, mask=_is_kernel)
    else:
        raise ValueError(f"name: expected 'adam' or 'adamw', got {name!r}")
    return (
        optax.chain(optax.clip_by_global_norm(clip_norm), core) if clip_norm else core
    )


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)
