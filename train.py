"""Trains a re-identification network.

    python train.py --config configs/demo.py
    python train.py --config configs/resnet50_ibn.py --config.data.root=DIR

The same command again resumes exactly where it stopped. Ctrl-C (or SIGTERM) finishes
the step, saves and leaves. Everything is built and checked before data are touched.
"""

import difflib
import re
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import config_flags

from configs import common
from dex_jax import _allocator, data, extraction, metrics, rerank, runs, training
from dex_jax._journal import TRAIN, VALIDATION, Journal, clock
from dex_jax._settings import Config
from dex_jax._signals import stop_requests
from dex_jax.checkpoints import CheckpointError, Checkpoints
from dex_jax.models import parts as layouts

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, for example configs/demo.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Default: runs/<config.name>.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Build everything, print what it will cost, and stop."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes; Slurm and others are recognised."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where nothing is recognised."
)
PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.")
PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this one is.")
flags.mark_flag_as_required("config")


@dataclass
class Job:
    """All that a run works with, built and checked."""

    config: Config
    workdir: Path
    reid: data.ReidData
    batches: data.IdentityBatches
    network: training.Network
    state: training.TrainState
    step: training.Step
    describe: Callable[[Any, Any], extraction.Apply]
    mesh: Mesh
    steps: int


def main(argv: list[str]) -> None:
    """Reads the flags, builds the job, trains, and says what came of it."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}; options start with --")
    with plain_errors(OSError):
        config: Config = CONFIG.value
        config.lock()
    logging.set_verbosity(logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    workdir = Path(WORKDIR.value or f"runs/{config.name}")
    runs.keep_compiled_programs()
    # A CPU computes steps in this thread, whose heap alone can keep their memory.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if DISTRIBUTED.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    with plain_errors(ValueError, FileNotFoundError):
        runs.validate(config)
        if DRY_RUN.value:
            dry_run(config)
            return
    folder = runs.lock(workdir) if jax.process_index() == 0 else nullcontext()
    with plain_errors(runs.RunError, CheckpointError, OSError), folder:
        with plain_errors(ValueError, FileNotFoundError):
            job = build(config, workdir)
        train(job)


@contextmanager
def plain_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Tells a user's mistake in its own words, without a traceback."""
    try:
        yield
    except kinds as error:
        sys.exit(f"error: {error}")


def build(config: Config, workdir: Path) -> Job:
    """Network, optimizer and mesh first, then the data, then the folder."""
    runs.check_config(workdir, config)
    mesh = training.data_mesh()
    training.check_batch_size(
        config.batch.ids_per_batch * config.batch.images_per_id, mesh
    )
    # Shapes alone, for a number of classes yet unknown: settings fail before data.
    shapes, _, _ = runs.build_training(
        config, num_classes=2, steps_per_epoch=1, shapes=True
    )
    training.check_image_size(shapes, config.image_size)
    runs.pretrained_file(config)
    reid = runs.load_data(config)
    print(f"{reid.name} ({reid.source}): {len(reid.train)} training images")
    synthetic = int(np.sum(reid.train.domains != "real"))
    print(f"{synthetic} of them synthetic (config.data.mixing={config.data.mixing})")
    print(f"validation by {reid.protocol.describe()}")
    batches = data.IdentityBatches(
        reid.train.identities, seed=config.seed, **config.batch
    )
    _, num_classes = data.class_labels(reid.train)
    network, transform, schedule = runs.build_training(
        config, num_classes=num_classes, steps_per_epoch=batches.steps_per_epoch
    )
    if jax.process_index() == 0:
        runs.save_config(workdir, config)
        runs.save_classes(
            workdir, reid.source, np.unique(reid.train.identities).tolist()
        )
    state = training.init_state(network, transform, average=config.optimizer.average)
    shardings = training.state_shardings(
        state, mesh, shard_parameters=config.run.shard_parameters
    )
    step = runs.train_step(config, network, transform, schedule)
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


def train(job: Job) -> None:
    """The loop: a step, its record, now and then a validation and a checkpoint."""
    with Checkpoints(job.workdir) as kept, stop_requests() as stop:
        found = kept.restore(job.state)
        start, state, notes = found or (0, job.state, {"best": -1.0})
        best = float(notes["best"])
        journal = Journal(
            job.workdir,
            steps=job.steps,
            start=start,
            batch_size=job.batches.batch_size,
            active=jax.process_index() == 0,
        )
        _greet(journal, job, start)
        saved, begin = time.monotonic(), time.monotonic()
        road = data.train_batches(
            job.reid.train,
            job.batches,
            image_size=job.config.image_size,
            start_step=start,
            workers=job.config.run.workers,
            cache_dir=job.workdir / "cache",
            process=(jax.process_index(), jax.process_count()),
        )
        step = start
        with closing(journal), closing(_readable(road)) as road:
            for batch in journal.waits(road):
                if step >= job.steps or agreed(job, step, stop()):
                    break
                state, figures = job.step(state, *_to_devices(job, batch))
                step += 1
                record(journal, job, step, figures, batch)
                if step == start + 1:
                    _keep_memory(journal)
                if _validation_due(job, step):
                    result = validate(job, state)
                    journal.row(VALIDATION, step, result)
                    journal.say(_validation_line(step, result))
                    journal.pause()
                    if result["mean_ap"] > best:
                        best = result["mean_ap"]
                        kept.save_best(step, state, notes={"best": best})
                minutes = (time.monotonic() - saved) / 60
                if agreed(job, step, minutes >= job.config.run.checkpoint_minutes):
                    kept.save(step, state, notes={"best": best})
                    saved = time.monotonic()
            kept.save(step, state, notes={"best": best})
            kept.wait()
            _farewell(journal, job, step, best, time.monotonic() - begin)


def record(
    journal: Journal,
    job: Job,
    step: int,
    figures: training.Metrics,
    batch: data.TrainBatch,
) -> None:
    """Writes a step down; stops the run at a loss that is not a number."""
    values = {name: np.asarray(value) for name, value in figures.items()}
    loss = float(values["loss"])
    if not (np.isfinite(loss) and np.isfinite(values["gradient_norm"])):
        names = [job.reid.train.names[i] for i in batch.indices]
        raise runs.RunError(
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


def validate(job: Job, state: training.TrainState) -> dict[str, float]:
    """Cosine ranking of the validation set at one scale, by its own protocol."""
    reid, config = job.reid, job.config
    params = state.average if config.optimizer.average else state.params
    apply = job.describe(*training.local_copy((params, state.stats), job.mesh))
    query, gallery = (
        jnp.asarray(
            extraction.extract(
                apply,
                split,
                image_size=config.image_size,
                batch_size=config.evaluation.batch_size,
                progress=False,
            )
        )
        for split in (reid.query, reid.gallery)
    )
    junk = reid.protocol.remove_same_camera
    result = metrics.evaluate(
        rerank.cosine_similarity(query, gallery),
        query_identities=reid.query.identities,
        gallery_identities=reid.gallery.identities,
        query_cameras=reid.query.cameras if junk else None,
        gallery_cameras=reid.gallery.cameras if junk else None,
        top=reid.protocol.top,
        ap_denominator=reid.protocol.ap_denominator,
    )
    cmc = np.asarray(result.cmc)
    return {
        "mean_ap": float(result.mean_ap),
        "cmc_1": float(cmc[0]),
        "cmc_5": float(cmc[min(4, len(cmc) - 1)]),
        "mean_inp": float(result.mean_inp),
    }


def agreed(job: Job, step: int, wish: bool) -> bool:
    """Whether any process wishes it; several ask one another only now and then."""
    if jax.process_count() == 1:
        return wish
    if step % job.config.run.log_steps:
        return False
    return bool(np.any(multihost_utils.process_allgather(np.array(wish))))


def dry_run(config: Config) -> None:
    """Prints what the run would be and cost, without making anything."""
    try:
        reid = runs.load_data(config)
    except FileNotFoundError as error:
        print(f"{error}\nGoing on with {config.data.expected_identities} identities.")
        num_classes = config.data.expected_identities
    else:
        num_classes = data.class_labels(reid.train)[1]
    per_epoch = -(-num_classes // config.batch.ids_per_batch)
    network, transform, schedule = runs.build_training(
        config, num_classes=num_classes, steps_per_epoch=per_epoch, shapes=True
    )
    side = config.image_size // network.stride
    print(layouts.table(network.parts, channels=network.channels, size=(side, side)))
    print(f"{training.count(network.params) / 1e6:.1f} M parameters")
    steps = per_epoch * config.epochs
    print(f"{num_classes} identities: {per_epoch} steps an epoch, {steps} in all")
    cost = training.cost(
        runs.train_step(config, network, transform, schedule),
        training.init_state(network, transform, average=config.optimizer.average),
        batch_size=config.batch.ids_per_batch * config.batch.images_per_id,
        image_size=config.image_size,
    )
    print(
        f"one step: {cost.operations / 1e9:.0f} Gflop, {cost.memory / 2**30:.1f} GiB; "
        f"at the {cost.rate / 1e9:.0f} Gflop/s of a matrix product here a run takes "
        f"about {clock(steps * cost.operations / cost.rate)}"
    )


def _to_devices(job: Job, batch: data.TrainBatch) -> list[jax.Array]:
    rows = NamedSharding(job.mesh, PartitionSpec("data"))
    arrays = [
        jax.make_array_from_process_local_data(rows, values)
        for values in (batch.images, batch.labels)
    ]
    # A CPU computes in this thread only what has all of its inputs.
    return jax.block_until_ready(arrays)


def _readable(
    road: Iterator[data.TrainBatch],
) -> Generator[data.TrainBatch, None, None]:
    try:
        yield from road
    except (ValueError, FileNotFoundError) as error:
        raise runs.RunError(f"{error}; the checkpoints so far are good") from error


def _validation_due(job: Job, step: int) -> bool:
    every = job.config.evaluation.every_epochs * job.batches.steps_per_epoch
    return step == job.steps or bool(every and step % every == 0)


def _validation_line(step: int, result: dict[str, float]) -> str:
    return (
        f"step {step}: validation mAP {100 * result['mean_ap']:.1f}, CMC@1 "
        f"{100 * result['cmc_1']:.1f}, CMC@5 {100 * result['cmc_5']:.1f}"
    )


def _greet(journal: Journal, job: Job, start: int) -> None:
    devices = job.mesh.devices.size
    journal.say(
        f"{job.config.model.name}: {training.count(job.network.params) / 1e6:.2f} M "
        f"parameters, {job.network.parts.num_parts} parts, {devices} device(s)"
    )
    if not job.config.model.pretrained:
        journal.say("weights start random (no config.model.pretrained)")
    if start:
        journal.say(f"resuming after step {start} of {job.steps}")
    journal.say(f"{job.steps} steps to {job.workdir}; the first one compiles")


def _keep_memory(journal: Journal) -> None:
    """On a CPU, after the first step: later ones work in its memory."""
    # Several devices compute in threads of their own, whose heaps cannot keep it.
    alone = jax.default_backend() == "cpu" and jax.local_device_count() == 1
    if alone and _allocator.keep_freed_memory():
        gib = _allocator.peak() / 2**30
        journal.say(f"freed memory is kept for the next step ({gib:.1f} GiB so far)")


def _farewell(
    journal: Journal, job: Job, step: int, best: float, seconds: float
) -> None:
    if step < job.steps:
        journal.say(
            f"stopped after step {step} of {job.steps}; the same command resumes"
        )
        return
    journal.say(
        f"done: {job.steps} steps in {clock(seconds)} ({journal.waited / seconds:.1%} "
        f"of it waiting for images), best validation mAP {100 * best:.1f}. "
        f"Next: python evaluate.py --workdir {job.workdir}"
    )


def read_flags(argv: list[str]) -> list[str]:
    """Parses the command line; an unknown setting is told with its nearest kin."""
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:
        found = re.search(r"[A-Za-z]\w*", str(error))
        name = found.group() if found else str(error)
        known = runs.setting_names(common.get_config())
        leaves = {setting.rpartition(".")[2]: setting for setting in known}
        near = [leaves[word] for word in difflib.get_close_matches(name, leaves)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        sys.exit(f"error: the config has no field {name!r}{hint}")
    except (flags.Error, KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=read_flags)
