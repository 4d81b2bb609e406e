"""One training step as a pure function, and what it needs around it.

The state is a pytree of plain nested dicts, the step is
`(state, images, labels) -> (state, metrics)`, and all randomness comes from the seed
and the step's number: state and step number are all that an exact resume needs. Under a
mesh the batch is split over its `data` axis; batch norm and the triplet mining see the
whole batch, so the number of devices does not change the arithmetic.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from dex_jax import losses, models
from dex_jax._optimizer import learning_rate as learning_rate
from dex_jax._optimizer import optimizer as optimizer
from dex_jax._partition_loss import Metrics
from dex_jax._partition_loss import partition_loss as partition_loss
from dex_jax.data import augment
from dex_jax.models import parts as layouts


class Network(NamedTuple):
    """A network taken apart: its structure and its two kinds of values."""

    graphdef: Any  # static structure
    params: Any  # nested dict, trained
    stats: Any  # nested dict, running statistics of batch norm
    parts: layouts.Layout  # which P parts there are
    channels: int  # of the feature map that the parts are cut from
    stride: int  # pixels of the image to one of the feature map


class TrainState(NamedTuple):
    """Everything that a training step changes."""

    step: jax.Array  # [] int32, updates made so far
    params: Any
    stats: Any
    optimizer: Any
    average: Any  # moving average of params; () when there is none


Step: TypeAlias = Callable[..., tuple[TrainState, Metrics]]


def build_network(
    name: str, *, num_classes: int, seed: int | None, **options: Any
) -> Network:
    """Builds a partition network and takes it apart for pure functions.

    Args:
        name: of the backbone, see `dex_jax.models`.
        num_classes: C, identities to classify.
        seed: of the random weights; None leaves shapes in their place.
        **options: of `dex_jax.models.build`.

    Returns:
        The network; `params` and `stats` are nested dicts of float32 arrays.

    Raises:
        ValueError: what `dex_jax.models.build` refuses.

    Example:
        >>> network = build_network("resnet_slim", num_classes=5, seed=None, dim=8,
        ...                         trunk_split="none")
        >>> network.parts.num_parts
        17
    """
    model = models.build(name, num_classes=num_classes, rngs=seed, **options)
    return Network(*models.split(model), model.parts, model.channels, model.stride)


def load_pretrained(network: Network, path: str | Path) -> tuple[Network, str]:
    """Puts a PyTorch checkpoint's weights into the backbone.

    Args:
        network: fresh from `build_network`.
        path: a `.pth` or `.safetensors` file; read without running code from it.

    Returns:
        The network with these weights, and a report of what was loaded.

    Raises:
        FileNotFoundError, ValueError: no such file, or weights of another network.
    """
    model = models.merge(network.graphdef, network.params, network.stats)
    report = models.load_torch_weights(model, models.read_torch_checkpoint(path))
    graphdef, params, stats = models.split(model)
    loaded = network._replace(graphdef=graphdef, params=params, stats=stats)
    told = (
        f"{Path(path).name}: {len(report.loaded)} tensors loaded by the names of "
        f"{report.dialect}, {len(report.missing)} missing, "
        f"{len(report.unexpected)} left over"
    )
    return loaded, told


def check_image_size(network: Network, image_size: int) -> None:
    """Refuses images whose feature map is too small for its parts.

    Raises:
        ValueError: names the image size and the branch that does not fit.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    try:
        jax.eval_shape(
            functools.partial(describe_images, network.graphdef),
            network.params,
            network.stats,
            images,
        )
    except ValueError as error:
        raise ValueError(f"image_size: {image_size} is too small; {error}") from error


def describe_images(
    graphdef: Any, params: Any, stats: Any, images: jax.Array
) -> jax.Array:
    """Descriptors `[B, P * D]` of normalised images `[B, H, W, 3]`, unit length.

    The 17 embeddings before their batch norms, one L2 norm over all (paper, section
    3.1).
    """
    (embeddings, _), _ = models.apply(graphdef, params, stats, images, train=False)
    return layouts.descriptor(embeddings)


def describer(graphdef: Any) -> Callable[[Any, Any], Partial]:
    """Makes `(params, stats) -> apply`, apply as `dex_jax.extraction` wants it.

    The weights travel as arguments of the compiled program, not as its constants, so
    that all states of one network share one compilation.
    """
    fixed = functools.partial(describe_images, graphdef)
    return lambda params, stats: Partial(fixed, params, stats)


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole of a pytree that may be split over devices and hosts, on this host."""
    whole = jax.jit(lambda t: t, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole(tree))


def count(tree: Any) -> int:
    """How many numbers a pytree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


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
        jax.jit(step, donate_argnums=0, compiler_options=_compiler_options())
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
        augmentation: options of `dex_jax.data.augment`.
        loss: options of `partition_loss`.
        accumulate: micro-batches per update. Batch norm and triplet mining then see a
            micro-batch each; batches come identity by identity, so identities stay
            whole.
        average: decay of the moving average of the weights; 0 keeps none.

    Returns:
        The step; `images` `[B, S, S, 3]` uint8, `labels` `[B]` int32. Compile it with
        `compile_step`.
    """
    local_parts = network.parts.num_local
    distances = jax.vmap(losses.hardest_distances, in_axes=(1, None))

    def objective(
        params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array
    ):
        (embeddings, logits), stats = models.apply(
            network.graphdef, params, stats, images, train=True, key=key
        )
        value, metrics = partition_loss(
            embeddings, logits, labels, local_parts=local_parts, **loss
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


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices in one row, the batch's axis `data` along it."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that cannot be split evenly over the mesh.

    Raises:
        ValueError: names both numbers.
    """
    devices = mesh.shape["data"]
    if batch_size % devices:
        raise ValueError(
            f"config.batch: {batch_size} images cannot be split over {devices} devices;"
            f" choose ids_per_batch * images_per_id as a multiple of {devices}"
        )


def state_shardings(
    state: Any, mesh: Mesh, *, shard_parameters: bool = False, smallest: int = 2**14
) -> Any:
    """Where each leaf of the state lives.

    Args:
        state: the state or its shapes.
        mesh: from `data_mesh`.
        shard_parameters: split every large leaf (parameters and their optimizer
            moments) along its longest divisible axis instead of copying it.
        smallest: values that a leaf must have to be split.
    """
    size = mesh.shape["data"]

    def place(leaf: Any) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        wide = [a for a in range(leaf.ndim) if leaf.shape[a] % size == 0]
        if shard_parameters and leaf.size >= smallest and wide:
            axes[max(wide, key=lambda a: leaf.shape[a])] = "data"
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(place, state)


def compile_step(step: Step, mesh: Mesh, shardings: Any) -> Step:
    """`jax.jit` over a mesh: the batch split, the old state's memory reused."""
    batch = NamedSharding(mesh, PartitionSpec("data"))
    return jax.jit(
        step,
        in_shardings=(shardings, batch, batch),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=_compiler_options(),
    )


def _compiler_options() -> dict[str, str]:
    """What keeps recomputed values apart from the kept ones on a CPU.

    XLA's CPU compiler takes away the barriers between them first, so that blocks to be
    computed again are all computed early, or merged with what they should replace.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}
