"""One training step as a pure function, and what it needs around it.

The state is a pytree of plain nested dicts, the step is
`(state, images, labels) -> (state, metrics)`, and all randomness comes from the seed
and the step's number: state and step number are all that an exact resume needs. Under a
mesh the batch is split over its `data` axis; batch norm and the triplet mining see the
whole batch, so the number of devices does not change the arithmetic.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from dex_jax import losses, models
from dex_jax.pipeline import augment
from dex_jax.training._loss import Metrics, partition_loss
from dex_jax.training._network import Network


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    step: jax.Array  # [] int32, updates made so far
    params: Any
    stats: Any
    optimizer: Any
    average: Any  # moving average of params; () when there is none


Step: TypeAlias = Callable[..., tuple[TrainState, Metrics]]


def init_state(
    network: Network, transform: optax.GradientTransformation, *, average: float = 0.0
) -> TrainState:
    """The state before the first step; of shapes where the network has shapes."""

    def fresh(params: Any) -> tuple[Any, Any, Any]:
        # The average is a copy: the step gives both their memory back.
        copy = jax.tree.map(jnp.copy, params) if average else ()
        return jnp.zeros((), jnp.int32), transform.init(params), copy

    leaves = jax.tree.leaves(network.params)
    abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    step, moments, copy = (
        jax.eval_shape(fresh, network.params) if abstract else fresh(network.params)
    )
    return TrainState(step, network.params, network.stats, moments, copy)


def train_step(
    network: Network,
    transform: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    augmentation: Mapping[str, Any],
    loss: Mapping[str, Any],
    accumulate: int = 1,
    average: float = 0.0,
) -> Step:
    """Makes the pure step `(state, images, labels) -> (state, metrics)`.

    Args:
        network: the structure that the state belongs to.
        transform: the optimizer.
        schedule: for the record; the optimizer holds its own.
        seed: all randomness is a function of it and of `state.step`.
        augmentation: options of `dex_jax.pipeline.augment`.
        loss: options of `partition_loss`.
        accumulate: micro-batches per update. Batch norm and triplet mining then see a
            micro-batch each; batches come identity by identity, so identities stay
            whole.
        average: decay of the moving average of the weights; 0 keeps none.

    Returns:
        The step; `images` `[B, S, S, 3]` uint8, `labels` `[B]` int32. Compile it with
        `compile_step`.
    """
    distances = jax.vmap(losses.hardest_distances, in_axes=(1, None))

    def objective(
        params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ):
        (embeddings, logits), stats = models.apply(
            network.graphdef, params, stats, images, train=True, key=key
        )
        value, metrics = partition_loss(
            embeddings, logits, labels, local_parts=network.parts.num_local, **loss
        )
        positive, negative = distances(jax.lax.stop_gradient(embeddings), labels)
        metrics["hardest_positive"] = jnp.mean(positive)
        metrics["hardest_negative"] = jnp.mean(negative)
        return value, (metrics | {"loss": value}, stats)

    def gradients(state: TrainState, images: jax.Array, labels: jax.Array):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        light, depth = jax.random.split(key)
        images = augment(light, images, **augmentation)
        slope = jax.grad(objective, has_aux=True)
        if accumulate == 1:
            grads, (metrics, stats) = slope(
                state.params, state.stats, images, labels, depth
            )
            return grads, metrics, stats

        def micro(stats: Any, batch: tuple[jax.Array, ...]):
            grads, (metrics, stats) = slope(state.params, stats, *batch)
            return stats, (grads, metrics)

        split = [x.reshape(accumulate, -1, *x.shape[1:]) for x in (images, labels)]
        keys = jax.random.split(depth, accumulate)
        stats, many = jax.lax.scan(micro, state.stats, (split[0], split[1], keys))
        grads, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), many)
        return grads, metrics, stats

    def step(state: TrainState, images: jax.Array, labels: jax.Array):
        grads, metrics, stats = gradients(state, images, labels)
        updates, opt_state = transform.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        mean = state.average
        if average:
            mean = optax.incremental_update(params, mean, 1 - average)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        return TrainState(state.step + 1, params, stats, opt_state, mean), metrics

    return step
