"""A trained network, read from its run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax

from dex_jax import data, training
from dex_jax.runs._build import build_training
from dex_jax.runs._checkpoints import Checkpoints, checksum
from dex_jax.runs._folder import CONFIG, load_config, load_num_classes
from dex_jax.runs._protocols import load_protocols
from dex_jax.runs._settings import Config, check_settings


@dataclass(frozen=True)
class Run:
    """A trained network, ready to describe images.

    Attributes:
        workdir: the run's folder.
        config: its resolved config.
        step: updates that its weights have seen.
        apply: normalised images `[B, S, S, 3]` float32 -> descriptors `[B, P * D]`
            float32, unit length; a pytree that holds the weights.
        fingerprint: changes with the weights and with the structure.
        protocols: how each split is scored; empty for runs of older versions.
    """

    workdir: Path
    config: Config
    step: int
    apply: Callable[[jax.Array], jax.Array]
    fingerprint: str
    protocols: Mapping[str, data.Protocol] = field(default_factory=dict)


def load_run(workdir: str | Path, *, which: str = "best") -> Run:
    """Reads a trained network.

    Args:
        workdir: the run's folder.
        which: "best" (by validation mAP; the newest state where no validation was
            made) or "last".

    Raises:
        FileNotFoundError: no run, or one without a checkpoint.
        ValueError: its config lacks settings, as that of an older version does, or
            one of its files is damaged.
        CheckpointError: there are checkpoints and none can be read.
    """
    config = load_config(workdir)
    try:
        check_settings(config)
    except ValueError as error:
        raise ValueError(f"{workdir}: {CONFIG} is of no use here:\n{error}") from None
    num_classes = load_num_classes(workdir)
    protocols = load_protocols(workdir)
    network, transform, _ = build_training(
        config, num_classes=num_classes, steps_per_epoch=1, shapes=True
    )
    like = training.init_state(network, transform, average=config.optimizer.average)
    with Checkpoints(workdir) as kept:
        found = kept.restore(like, which=which)
        if found is None and which == "best":
            found = kept.restore(like)
    if found is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: train it first")
    step, state, _ = found
    params = state.average if config.optimizer.average else state.params
    identity = {"model": config.model.to_dict(), "weights": checksum(params)}
    return Run(
        workdir=Path(workdir),
        config=config,
        step=step,
        apply=training.describer(network.graphdef)(params, state.stats),
        fingerprint=f"{json.dumps(identity, sort_keys=True)}{checksum(state.stats)}",
        protocols=protocols,
    )
