"""Training over the devices of a mesh: what lies where, and the compiled step."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dex_jax.training._step import Step


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
        compiler_options=compiler_options(),
    )


def compiler_options() -> dict[str, str]:
    """What keeps recomputed values apart from the kept ones on a CPU.

    XLA's CPU compiler takes away the barriers between them first, so that blocks to be
    computed again are all computed early, or merged with what they should replace.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def local_copy(tree: Any, mesh: Mesh) -> Any:
    """The whole of a pytree that may be split over devices and hosts, on this host."""
    whole = jax.jit(lambda t: t, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole(tree))


def place_batch(mesh: Mesh, *arrays: np.ndarray) -> list[jax.Array]:
    """Splits this host's rows `[B / hosts, ...]` of a batch over its devices.

    Returns:
        The arrays of the whole batch `[B, ...]`, there and ready.
    """
    rows = NamedSharding(mesh, PartitionSpec("data"))
    placed = [jax.make_array_from_process_local_data(rows, a) for a in arrays]
    # A CPU computes in the calling thread only what has all of its inputs.
    return jax.block_until_ready(placed)


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any of the processes; all of them must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))
