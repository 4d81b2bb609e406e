"""The training step as a pure function, and what it needs around it."""

from dex_jax._checks import missing_extra

try:
    from dex_jax.training._cost import Cost, cost
    from dex_jax.training._loss import Metrics, partition_loss
    from dex_jax.training._mesh import (
        any_process,
        check_batch_size,
        compile_step,
        data_mesh,
        local_copy,
        place_batch,
        state_shardings,
    )
    from dex_jax.training._network import (
        Network,
        build_network,
        check_image_size,
        count,
        describe_images,
        describer,
        load_pretrained,
    )
    from dex_jax.training._optimizer import learning_rate, optimizer
    from dex_jax.training._step import Step, TrainState, init_state, train_step
except ModuleNotFoundError as error:
    raise missing_extra(error, "train") from None

__all__ = [
    "Cost",
    "Metrics",
    "Network",
    "Step",
    "TrainState",
    "any_process",
    "build_network",
    "check_batch_size",
    "check_image_size",
    "compile_step",
    "cost",
    "count",
    "data_mesh",
    "describe_images",
    "describer",
    "init_state",
    "learning_rate",
    "load_pretrained",
    "local_copy",
    "optimizer",
    "partition_loss",
    "place_batch",
    "state_shardings",
    "train_step",
]
