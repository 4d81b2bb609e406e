"""All that a training works with, built and checked before its first step."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from dex_jax import data, training
from dex_jax.models import parts as layouts
from dex_jax.pipeline import IdentityBatches, TrainBatch, train_batches
from dex_jax.runs._build import (
    build_step,
    build_training,
    load_training_data,
    pretrained_file,
)
from dex_jax.runs._checkpoints import CheckpointError
from dex_jax.runs._folder import RunError, check_config, save_classes, save_config
from dex_jax.runs._journal import TRAIN, Journal, clock
from dex_jax.runs._protocols import check_scorable, load_protocols, save_protocols
from dex_jax.runs._settings import Config

NO_BEST = -1.0  # mAP before the first validation


@dataclass
class Job:
    """All that a run works with, built and checked.

    Attributes:
        config: the resolved config.
        workdir: the run's folder.
        reid: the data set, with the identities held back as query and gallery.
        batches: the sampler of training images.
        network: structure and first weights.
        state: the first state, placed on the mesh.
        step: the compiled training step.
        describe: `(params, stats)` to a function that describes images.
        mesh: of all devices.
        steps: updates in the whole run.
    """

    config: Config
    workdir: Path
    reid: data.ReidData
    batches: IdentityBatches
    network: training.Network
    state: training.TrainState
    step: training.Step
    describe: Callable[[Any, Any], Partial]
    mesh: Mesh
    steps: int

    def facts(self) -> list[str]:
        """Says what will be trained on what, one sentence a line."""
        synthetic = int(np.sum(self.reid.train.domains != "real"))
        mixing = self.config.data.mixing
        model = self.config.model
        lines = [
            f"{self.reid.name} ({self.reid.source}): {len(self.reid.train)} training "
            f"images",
            f"{synthetic} of them synthetic (config.data.mixing={mixing})",
            f"validation by {self.reid.protocol.describe()}"
            if self.validated
            else "no validation (config.run.validate=False)",
            f"{model.name}: {training.count(self.network.params) / 1e6:.2f} M "
            f"parameters, {self.network.parts.num_parts} parts, "
            f"{self.mesh.devices.size} device(s)",
        ]
        if not model.pretrained:
            lines.append("weights start random (no config.model.pretrained)")
        return lines

    def images(self, start: int) -> Generator[TrainBatch, None, None]:
        """Yields the batches of this process from step `start` on, read ahead.

        Raises:
            RunError: while iterating, an image that cannot be read.
        """
        batches = train_batches(
            self.reid.train,
            self.batches,
            image_size=self.config.image_size,
            start_step=start,
            workers=self.config.run.workers,
            cache_dir=self.workdir / "cache",
            process=(jax.process_index(), jax.process_count()),
        )
        try:
            yield from batches
        except (ValueError, FileNotFoundError) as error:
            raise RunError(f"{error}; the checkpoints so far are good") from error
        finally:
            batches.close()

    @property
    def validated(self) -> bool:
        """Whether the run is validated at all."""
        return self.config.run.get("validate", True)

    def validation_due(self, step: int) -> bool:
        """Whether the state after so many steps is validated."""
        if not self.validated:
            return False
        every = self.config.evaluation.every_epochs * self.batches.steps_per_epoch
        return step == self.steps or bool(every and step % every == 0)

    def described_by(self, state: training.TrainState) -> Partial:
        """The function that describes images with a state's weights, on this host.

        The moving average of the weights stands in for them where there is one.
        """
        params = state.average if self.config.optimizer.average else state.params
        return self.describe(*training.local_copy((params, state.stats), self.mesh))


def build_job(config: Config, workdir: Path) -> Job:
    """Builds network, optimizer and mesh first, then the data, then the folder.

    Raises:
        ValueError: a setting, a batch size or an image size that does not fit, a
            folder of another run, data that cannot be used or validated.
        FileNotFoundError: the data set or the pretrained weights are not there.
    """
    check_config(workdir, config)
    mesh = training.data_mesh()
    training.check_batch_size(
        config.batch.ids_per_batch * config.batch.images_per_id, mesh
    )
    # Shapes alone, for a number of classes yet unknown: settings fail before data.
    shapes, _, _ = build_training(config, num_classes=2, steps_per_epoch=1, shapes=True)
    training.check_image_size(shapes, config.image_size)
    pretrained_file(config)
    reid, protocols = _load_data(config)
    # A run that goes on is scored as it was when it began.
    protocols |= load_protocols(workdir)
    reid = replace(reid, protocol=protocols["validation"])
    check_scorable(reid, config)
    batches = IdentityBatches(reid.train.identities, seed=config.seed, **config.batch)
    _, num_classes = data.class_labels(reid.train)
    network, transform, schedule = build_training(
        config, num_classes=num_classes, steps_per_epoch=batches.steps_per_epoch
    )
    if jax.process_index() == 0:
        save_config(workdir, config)
        save_protocols(workdir, protocols)
        save_classes(workdir, reid.source, reid.train)
    state = training.init_state(network, transform, average=config.optimizer.average)
    shardings = training.state_shardings(
        state, mesh, shard_parameters=config.run.shard_parameters
    )
    step = build_step(config, network, transform, schedule)
    return Job(
        config=config,
        workdir=workdir,
        reid=reid,
        batches=batches,
        network=network,
        state=jax.device_put(state, shardings),
        step=training.compile_step(step, mesh, shardings),
        describe=training.describer(network.graphdef),
        mesh=mesh,
        steps=config.epochs * batches.steps_per_epoch,
    )


def _load_data(config: Config) -> tuple[data.ReidData, dict[str, data.Protocol]]:
    """`load_training_data`, whose error names the flags that mend it."""
    try:
        return load_training_data(config)
    except FileNotFoundError as error:
        section = config.data
        hint = "--config.data.root=DIR says where it lies"
        other = "--config.data.name=procedural_vehicles"
        if section.root:
            other += " --config.data.root="
        hint += f"; {other} tries the same without a download"
        if section.synthetic_root and section.synthetic_root in str(error):
            hint = "--config.data.synthetic_root=DIR says where it lies"
        raise FileNotFoundError(f"{error}; {hint}") from None


def record_step(
    journal: Journal,
    job: Job,
    step: int,
    figures: training.Metrics,
    batch: TrainBatch,
) -> None:
    """Writes a step down.

    Raises:
        RunError: its loss or gradient is not a number; names the images.
    """
    values = {name: np.asarray(value) for name, value in figures.items()}
    loss = float(values["loss"])
    if not (np.isfinite(loss) and np.isfinite(values["gradient_norm"])):
        names = [job.reid.train.names[i] for i in batch.indices]
        raise RunError(
            f"step {step}: the loss is {loss} and the gradient's norm "
            f"{values['gradient_norm']}; the last checkpoint in {job.workdir} is good. "
            f"Images of this batch: {', '.join(names)}"
        )
    journal.tick(step, loss)
    if step % job.config.run.log_steps == 0 or step == job.steps:
        scalars = {k: float(v) for k, v in values.items() if v.ndim == 0}
        scalars["images_per_second"] = journal.rate()
        scalars["data_wait"] = journal.data_wait()
        journal.row(TRAIN, step, scalars, values["part_loss"].tolist())


def best_of(notes: Mapping[str, Any]) -> float:
    """The best validation mAP so far, from what a checkpoint notes.

    Raises:
        CheckpointError: it notes none.
    """
    best = notes.get("best")
    if not isinstance(best, (int, float)) or not NO_BEST <= best <= 1:
        raise CheckpointError(
            f"the last checkpoint notes no best mAP, but {best!r:.80}"
        )
    return float(best)


def farewell(
    job: Job, journal: Journal, start: int, step: int, best: float, seconds: float
) -> str:
    """Says how far a run came and what may come next.

    Args:
        job: the run.
        journal: what its steps waited for.
        start: steps that were made before.
        step: steps that are made now.
        best: the best validation mAP so far, below 0 for none.
        seconds: since its start or resumption.
    """
    if step < job.steps:
        return f"stopped after step {step} of {job.steps}; the same command resumes"
    done = f"done: {job.steps} steps in {clock(seconds)}"
    if start == job.steps:
        done = f"done: all {job.steps} steps were made before"
    elif start:
        done = f"done: the last {step - start} of {job.steps} steps in {clock(seconds)}"
    share = journal.waiting_share()
    waited = "" if share is None else f" ({share:.1%} of it waiting for images)"
    figure = "" if best < 0 else f", best validation mAP {100 * best:.1f}"
    return f"{done}{waited}{figure}. Next: python evaluate.py --workdir {job.workdir}"


def estimate(config: Config) -> list[str]:
    """Says what a run would be and cost, without making anything (`--dry_run`).

    Where the data set is not there, `config.data.expected_identities` stands in.

    Returns:
        Lines of text: the parts, the parameters, the steps, one step's cost.

    Raises:
        ValueError, FileNotFoundError: as `build_job`.
    """
    lines = []
    pretrained_file(config)
    try:
        reid, _ = _load_data(config)
    except FileNotFoundError as error:
        num_classes = config.data.expected_identities
        lines += [str(error), f"Going on with {num_classes} identities."]
    else:
        num_classes = data.class_labels(reid.train)[1]
        check_scorable(reid, config)
    per_epoch = -(-num_classes // config.batch.ids_per_batch)
    size = {"num_classes": num_classes, "steps_per_epoch": per_epoch}
    if pretrained_file(config):
        build_training(config, **size)  # reads it, and says what of it fits
    network, transform, schedule = build_training(config, **size, shapes=True)
    side = config.image_size // network.stride
    steps = per_epoch * config.epochs
    cost = training.cost(
        build_step(config, network, transform, schedule),
        training.init_state(network, transform, average=config.optimizer.average),
        batch_size=config.batch.ids_per_batch * config.batch.images_per_id,
        image_size=config.image_size,
    )
    return [
        *lines,
        layouts.table(network.parts, channels=network.channels, size=(side, side)),
        f"{training.count(network.params) / 1e6:.1f} M parameters",
        f"{num_classes} identities: {per_epoch} steps an epoch, {steps} in all",
        f"one step: {cost.operations / 1e9:.0f} Gflop, {cost.memory / 2**30:.1f} GiB; "
        f"at the {cost.rate / 1e9:.0f} Gflop/s of a matrix product here a run takes "
        f"about {clock(steps * cost.operations / cost.rate)}",
    ]
