"""Trains a re-identification network.

    python train.py --config configs/demo.py
    python train.py --config configs/resnet50_ibn.py --config.data.root=DIR

The same command again resumes exactly where it stopped. Ctrl-C (or SIGTERM) finishes
the step, saves and leaves. Everything is built and checked before data are touched.
`DEX_JAX_TRAIN_FLAGS` holds flags for every training, read before the command's own.
"""

import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import jax

try:
    from absl import app, flags, logging
    from ml_collections import config_flags

    from configs import common
    from dex_jax import evaluation, runs, training
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is missing; pip install 'dex_jax[train]' brings it")

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


def main(argv: list[str]) -> None:
    """Reads the flags, builds the job, trains, and says what came of it."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}; options start with --")
    with plain_errors(OSError):
        config: runs.Config = CONFIG.value
        config.lock()
    logging.set_verbosity(logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: shown(f"note: {message}\n")
    workdir = Path(WORKDIR.value or f"runs/{config.name}")
    runs.keep_compiled_programs()
    # Without asynchronous dispatch a CPU computes steps in this thread: only the main
    # thread's heap can keep the memory of one step for the next.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if DISTRIBUTED.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    with plain_errors(ValueError, FileNotFoundError, ModuleNotFoundError):
        runs.check_settings(config)
        if DRY_RUN.value:
            print(shown("\n".join(runs.estimate(config))))
            return
    folder = runs.lock(workdir) if jax.process_index() == 0 else nullcontext()
    with plain_errors(runs.RunError, runs.CheckpointError, OSError), folder:
        with plain_errors(ValueError, FileNotFoundError, ModuleNotFoundError):
            job = runs.build_job(config, workdir)
        train(job)


def shown(text: str) -> str:
    """A message as a screen can show it, whatever words of files are in it."""
    return runs.plain_text(text, lines=True)


@contextmanager
def plain_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Exits with the message of an error of these kinds alone, without a traceback."""
    try:
        yield
    except kinds as error:
        sys.exit(shown(f"error: {error}"))


def train(job: runs.Job) -> None:
    """The loop: a step, its record, now and then a validation and a checkpoint."""
    settings = job.config.run
    with runs.Checkpoints(job.workdir) as kept, runs.stop_requests() as stop:
        found = kept.restore(job.state)
        start, state, notes = found or (0, job.state, {"best": runs.NO_BEST})
        best = runs.best_of(notes)
        journal = runs.Journal(
            job.workdir,
            steps=job.steps,
            start=start,
            batch_size=job.batches.batch_size,
            active=jax.process_index() == 0,
        )
        for line in job.facts():
            journal.say(line)
        if start:
            journal.say(f"resuming after step {start} of {job.steps}")
        if start < job.steps:
            journal.say(f"{job.steps} steps to {job.workdir}; the first one compiles")
        saved, begin = time.monotonic(), time.monotonic()
        step = start
        with closing(journal), closing(job.images(start)) as images:
            if start and job.validation_due(start):
                best = finish_validation(job, journal, kept, start, state, best)
            for batch in journal.waits(islice(images, job.steps - start)):
                if agreed(stop(), step, settings.log_steps):
                    break
                pixels, labels = training.place_batch(
                    job.mesh, batch.images, batch.labels
                )
                state, figures = job.step(state, pixels, labels)
                step += 1
                runs.record_step(journal, job, step, figures, batch)
                if step == start + 1 and (line := runs.keep_step_memory()):
                    journal.say(line)
                if job.validation_due(step):
                    # Whatever becomes of the validation, no step is lost.
                    kept.save(step, state, notes={"best": best})
                    saved = time.monotonic()
                    best = validate(job, journal, kept, step, state, best)
                due = time.monotonic() - saved >= 60 * settings.checkpoint_minutes
                if agreed(due, step, settings.log_steps):
                    kept.save(step, state, notes={"best": best})
                    saved = time.monotonic()
            kept.save(step, state, notes={"best": best})
            kept.wait()
            seconds = time.monotonic() - begin
            journal.say(runs.farewell(job, journal, start, step, best, seconds))


def agreed(wanted: bool, step: int, every: int) -> bool:
    """Whether any process wants it; several ask one another every so many steps."""
    if jax.process_count() > 1 and step % every:
        return False
    return training.any_process(wanted)


def finish_validation(
    job: runs.Job,
    journal: runs.Journal,
    kept: runs.Checkpoints,
    step: int,
    state: training.TrainState,
    best: float,
) -> float:
    """Validates the state of a resumed run unless that was done; returns the best mAP.

    A state is saved before it is validated, so a run may have ended in between.
    """
    known = journal.figure(runs.VALIDATION, step, "mean_ap")
    if not training.any_process(known is None or known > best):
        return best
    try:
        found = kept.restore(job.state, which="best")
    except runs.CheckpointError as error:
        journal.say(str(error))
        found = None
    if found is not None and found[0] == step:
        return runs.best_of(found[2])
    journal.drop_rows(runs.VALIDATION, step - 1)
    try:
        return validate(job, journal, kept, step, state, best)
    except runs.RunError as error:  # it stopped the run before, and need not again
        journal.say(f"note: {error}")
        return best


def validate(
    job: runs.Job,
    journal: runs.Journal,
    kept: runs.Checkpoints,
    step: int,
    state: training.TrainState,
    best: float,
) -> float:
    """Scores the held-out identities and returns the best mAP, whose state is kept."""
    try:
        figures = evaluation.validate(
            job.described_by(state),
            job.reid,
            image_size=job.config.image_size,
            batch_size=job.config.evaluation.batch_size,
        )
    except (ValueError, OSError) as error:
        raise runs.RunError(
            f"step {step} could not be validated: {error}; its checkpoint in "
            f"{job.workdir} is good and the same command goes on from there "
            "(--config.run.validate=False: without validation)"
        ) from error
    journal.row(runs.VALIDATION, step, figures)
    journal.say(
        f"step {step}: validation mAP {100 * figures['mean_ap']:.1f}, CMC@1 "
        f"{100 * figures['cmc_1']:.1f}, CMC@5 {100 * figures['cmc_5']:.1f}"
    )
    journal.pause()
    if figures["mean_ap"] > best:
        best = figures["mean_ap"]
        kept.save_best(step, state, notes={"best": best})
    return best


def read_flags(argv: list[str]) -> list[str]:
    """Parses the command line; an unknown setting is named with what is like it."""
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:
        found = re.search(r"[A-Za-z]\w*", str(error))
        name = found.group() if found else str(error)
        near = runs.near_settings(name, common.get_config())
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        sys.exit(f"error: the config has no field {name!r}{hint}")
    except (flags.Error, KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    # In place: ml_collections looks for the settings in `sys.argv` itself.
    try:
        more = shlex.split(os.environ.get("DEX_JAX_TRAIN_FLAGS", ""))
    except ValueError as error:
        sys.exit(f"error: DEX_JAX_TRAIN_FLAGS: {error}")
    sys.argv[1:] = runs.add_flags(sys.argv[1:], more)
    app.run(main, flags_parser=read_flags)
