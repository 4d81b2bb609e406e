"""The states that a run keeps on disk, by Orbax.

`checkpoints/` holds the last two states, for an exact resume, and `best/` the state of
the best validation mAP. They are written aside, renamed when complete, checked when
read, and restored on any number of devices.
"""

import contextlib
import errno
import gc
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from dex_jax import training
from dex_jax._checks import plain_text
from dex_jax.runs._digests import (
    DIGESTS,
    add_digests,
    check_digests,
    write_digests,
)

LAST, BEST = "checkpoints", "best"
_KEPT = {LAST: 2, BEST: 1}
_ANEW = "Move the folder away to start anew."
# What a system says where nothing more can be written; the last is a limit on files.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or does not belong to the run."""


class Checkpoints:
    """The checkpoints of one run: the last two, and the best by validation mAP.

    Saves are asynchronous: `save` returns as soon as the state is copied, and a
    state counts only when it is complete on disk. Reading changes nothing on disk and
    may go on beside a training. What is left of an interrupted save is cleaned up, and
    what could not be read is set aside, at the first save: only the one process (or
    group) that trains in the folder may save.

    Args:
        workdir: the run's folder; made by the first save.
        say: where reports of damage go, one line each.

    Raises:
        CheckpointError: the folder's path is not UTF-8, which Orbax needs.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as kept:
        ...     kept.save(3, {"w": jnp.arange(2.0)})
        ...     kept.wait()
        ...     step, state, _ = kept.restore({"w": jnp.zeros(2)})
        >>> step, state["w"].tolist()
        (3, [0.0, 1.0])
    """

    def __init__(self, workdir: str | Path, *, say: Callable[[str], None] = print):
        # Orbax narrates every save; what goes wrong it raises as well.
        absl_logging.set_verbosity(absl_logging.FATAL)
        self._workdir = _utf8(Path(workdir).absolute())
        self._say = lambda line: say(plain_text(line, lines=True))
        self._managers: dict[str, ocp.CheckpointManager] = {}
        self._saving: dict[str, int] = {}  # the step of the latest save
        self._unsealed: dict[str, int] = {}
        self._damaged: dict[str, list[int]] = {LAST: [], BEST: []}
        # Not asked of the disk: processes of one run could get different answers there.
        self._newest: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.wait()
        finally:
            for manager in self._managers.values():
                manager.close()

    def save(self, step: int, state: Any, *, notes: Mapping[str, Any] | None = None):
        """Starts saving `state` as the newest; `notes` is any JSON.

        Raises:
            CheckpointError: the disk refused this save or an earlier one still under
                way; the last good checkpoint stays.
        """
        if step != self._newest:
            self._write(LAST, step, state, notes)
            self._newest = step

    def save_best(self, step: int, state: Any, *, notes: Mapping[str, Any]):
        """Starts saving `state` in place of the best so far.

        A run that resumes before its best step comes to it again: a whole checkpoint of
        that step is left as it is.
        """
        self.wait()
        path = self._workdir / BEST / str(step)
        if training.any_process(os.path.lexists(path)):
            if not training.any_process(not _is_whole(path)):
                return
            self._damaged[BEST].append(step)
        self._write(BEST, step, state, notes)

    def _write(
        self, name: str, step: int, state: Any, notes: Mapping[str, Any] | None
    ) -> None:
        # One save at a time: one copy in memory, and one order in all processes.
        self.wait()
        self._set_aside(name)
        record = {"checksum": checksum(state), "notes": dict(notes or {})}
        record["digests"] = DIGESTS
        self._saving[name] = self._unsealed[name] = step
        with self._save_errors(name):
            self._manager(name).save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    record=ocp.args.JsonSave(record),
                ),
                force=True,
            )

    def _set_aside(self, name: str) -> None:
        """Renames what cannot be read: it would count, and stand in the way."""
        damaged = self._damaged[name]
        if not damaged:
            return
        if jax.process_index() == 0:
            for step in damaged:
                path = self._workdir / name / str(step)
                with contextlib.suppress(FileNotFoundError):
                    self._say(f"{path} is damaged and now called {_rename(path).name}")
        damaged.clear()
        training.any_process(False)  # no process goes on before it is done
        if name in self._managers:
            self._managers[name].reload()

    def _manager(self, name: str) -> ocp.CheckpointManager:
        """Makes the manager of a folder at its first save; it cleans up there."""
        folder = self._workdir / name

        def sign() -> None:  # in the thread that saves, just before the renaming
            for draft in folder.glob(f"{self._saving[name]}.orbax-checkpoint-tmp*"):
                write_digests(draft)

        if name not in self._managers:
            folder.mkdir(parents=True, exist_ok=True)
            # Processes meet at barriers named by step: without a prefix, the two
            # folders' saves of one step would meet at each other's.
            options = ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT[name],
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=sign),
                multiprocessing_options=_barriers(name),
            )
            self._managers[name] = ocp.CheckpointManager(folder, options=options)
        return self._managers[name]

    def wait(self) -> None:
        """Blocks until all saves are complete on disk."""
        for name, manager in self._managers.items():
            with self._save_errors(name):
                step = self._unsealed.pop(name, None)
                manager.wait_until_finished()
                if step is not None and jax.process_index() == 0:
                    add_digests(self._workdir / name / str(step))

    @contextlib.contextmanager
    def _save_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of Orbax, which has many kinds
            folder = self._workdir / name
            full = " Is the disk full?" if _disk_is_full(error, folder) else ""
            raise CheckpointError(
                f"checkpoint {self._saving[name]} could not be written to {folder} "
                f"({_first_line(error)}); the last good checkpoint is untouched.{full}"
            ) from error

    def restore(
        self, like: Any, *, which: str = "last"
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Reads the newest whole state, or None where there is none at all.

        A damaged newest checkpoint is reported on the screen and the one before it
        is used; with none left that can be read it is an error, never a fresh start.

        Args:
            like: a pytree of arrays or `jax.ShapeDtypeStruct` with the shapes, dtypes
                and (optional) shardings to restore to.
            which: "last" or "best".

        Returns:
            `(step, state, notes)`, or None.

        Raises:
            CheckpointError: there are checkpoints and none can be read.
        """
        name = BEST if which == "best" else LAST
        folder = self._workdir / name
        while True:
            steps = saved_steps(folder)
            found, faults = _newest_whole(folder, steps, like)
            # A training beside may have replaced what was to be read here.
            if not faults or not training.any_process(steps != saved_steps(folder)):
                break
        for fault in faults.values():
            self._say(fault)
        self._damaged[name] = list(faults)
        if found is not None and name == LAST:
            self._newest = found[0]
        if faults and found is None:
            raise CheckpointError(
                f"{folder}: no checkpoint can be read.\n"
                + "\n".join(faults.values())
                + "\n"
                + ("evaluate.py --which last reads another." if name == BEST else _ANEW)
            )
        return found


def _utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{path}: checkpoints need a path in UTF-8; give the folder another name"
        ) from None
    return path


def _barriers(name: str) -> ocp.options.MultiprocessingOptions:
    return ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=name)


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, whole or not, the newest first."""
    names = os.listdir(folder) if folder.exists() else []
    numbers = [int(n) for n in names if n.isascii() and n.isdigit() and len(n) < 19]
    return sorted((n for n in numbers if str(n) in names), reverse=True)


def _newest_whole(
    folder: Path, steps: list[int], like: Any
) -> tuple[tuple[int, Any, dict[str, Any]] | None, dict[int, str]]:
    """Reads the first of some steps that can be read, and says why not the others."""
    faults: dict[int, str] = {}
    for step in steps:
        path = folder / str(step)
        try:
            state, notes = _read(path, like)
        except CheckpointError as error:
            faults[step] = f"checkpoint {step} cannot be read: {path}: {error}"
        else:
            return (step, state, notes), faults
    return None, faults


def _read(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint in all processes, or fails in all of them.

    Raises:
        CheckpointError: something of it is damaged.
    """
    fault, read, complete = "", None, False
    try:
        complete = check_digests(path)
    except (ValueError, OSError) as error:
        fault = _first_line(error)
    if not training.any_process(bool(fault)):
        with _orphans_silenced():
            # Damage that no digest shows reaches Orbax as any kind of error.
            try:
                *read, digests = _restored(path, like)
                if digests and not complete:
                    fault = f"{DIGESTS} is missing"
            except Exception as error:
                fault = _first_line(error)
    if training.any_process(bool(fault)) or read is None:
        raise CheckpointError(fault or "another process cannot read it")
    state, notes = read
    return state, notes


@contextlib.contextmanager
def _orphans_silenced() -> Iterator[None]:
    """Collects the coroutines of a failed read without what they print at their end."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _restored(path: Path, like: Any) -> tuple[Any, dict[str, Any], bool]:
    """Reads a state and its notes, and whether digests were written beside them."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None) or device
        ),
        like,
    )
    with ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(),
        multiprocessing_options=_barriers(path.parent.name),
    ) as reader:
        read = reader.restore(
            path,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore()
            ),
        )
    written = read["record"]["checksum"]
    if written and checksum(read["state"]) not in ("", written):
        raise CheckpointError("its content does not match its checksum")
    record = read["record"]
    return read["state"], dict(record["notes"]), "digests" in record


def _is_whole(path: Path) -> bool:
    try:
        return check_digests(path)
    except (ValueError, OSError):
        return False


def _rename(path: Path) -> Path:
    """Gives a folder a name that nothing else has."""
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return path.rename(aside)


def _disk_is_full(error: BaseException | None, folder: Path) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        # The library below Orbax gives the system's errors as text.
        if any(os.strerror(number) in str(error) for number in _FULL):
            return True
        error = error.__cause__ or error.__context__
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < 2**20
    return False


def _first_line(error: BaseException) -> str:
    return (
        str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
    )


def checksum(tree: Any) -> str:
    """A CRC-32 over all leaves of a pytree, in order.

    Empty where leaves are split over hosts, as no host sees the whole of them.
    """
    crc = 0
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return ""
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return f"{crc:08x}"
