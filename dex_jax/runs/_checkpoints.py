"""The states that a run keeps on disk, by Orbax.

`checkpoints/` holds the last two states, for an exact resume, and `best/` the state of
the best validation mAP. They are written aside, renamed when complete, checked when
read, and restored on any number of devices.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

LAST, BEST = "checkpoints", "best"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or does not belong to the run."""


class Checkpoints:
    """The checkpoints of one run: the last two, and the best by validation mAP.

    Saves are asynchronous: `save` returns as soon as the state is copied, and a
    state counts only when it is complete on disk.

    Args:
        workdir: the run's folder; made if it is not there.
        say: where reports of damage go, one line each.

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
        absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax narrates every save
        folder = Path(workdir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._last = _manager(folder / LAST, keep=2)
        self._best = _manager(folder / BEST, keep=1)
        self._say = say
        # Not asked of the disk: processes of one run could get different answers there.
        self._newest: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._last.close()
        self._best.close()

    def save(self, step: int, state: Any, *, notes: Mapping[str, Any] | None = None):
        """Starts saving `state` as the newest; `notes` is any JSON.

        Raises:
            CheckpointError: the disk refused this save or an earlier one still under
                way; the last good checkpoint stays.
        """
        if step != self._newest:
            self._write(self._last, step, state, notes)
            self._newest = step

    def save_best(self, step: int, state: Any, *, notes: Mapping[str, Any]):
        """Starts saving `state` in place of the best so far."""
        self._write(self._best, step, state, notes)

    def _write(
        self,
        manager: ocp.CheckpointManager,
        step: int,
        state: Any,
        notes: Mapping[str, Any] | None,
    ) -> None:
        # One save at a time: one copy in memory, and one order in all processes.
        self.wait()
        record = {"checksum": checksum(state), "notes": dict(notes or {})}
        with _disk_errors(step):
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    record=ocp.args.JsonSave(record),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Blocks until all saves are complete on disk."""
        for manager in (self._last, self._best):
            with _disk_errors(manager.latest_step()):
                manager.wait_until_finished()

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
        manager = self._best if which == "best" else self._last
        steps = sorted(manager.all_steps(), reverse=True)
        faults = []
        for step in steps:
            try:
                state, notes = _read(manager, step, like)
            except (ValueError, KeyError, TypeError, OSError, CheckpointError) as error:
                fault = f"checkpoint {step} cannot be read: {_first_line(error)}"
                faults.append(fault)
                self._say(fault)
                continue
            for damaged in (s for s in steps if s > step):
                manager.delete(damaged)
            if which == "last":
                self._newest = step
            return step, state, notes
        if faults:
            raise CheckpointError(
                f"{manager.directory}: no checkpoint can be read.\n"
                + "\n".join(faults)
                + "\nMove the folder away to start anew."
            )
        return None


def _manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    # Processes meet at barriers named by step: without a prefix, the two folders' saves
    # of one step would meet at each other's.
    names = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=folder.name)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
        multiprocessing_options=names,
    )
    return ocp.CheckpointManager(folder, options=options)


def _read(
    manager: ocp.CheckpointManager, step: int, like: Any
) -> tuple[Any, dict[str, Any]]:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=getattr(x, "sharding", None) or device
        ),
        like,
    )
    read = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore()
        ),
    )
    written = read["record"]["checksum"]
    if written and checksum(read["state"]) not in ("", written):
        raise CheckpointError("its content does not match its checksum")
    return read["state"], read["record"]["notes"]


@contextlib.contextmanager
def _disk_errors(step: int | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {step} could not be written ({_first_line(error)}); the last "
            "good checkpoint is untouched. Is the disk full?"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error) else repr(error)


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
