"""The record of a run: a line on the screen, two CSV files, TensorBoard."""

import csv
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text
from tensorboardX import SummaryWriter

from dex_jax._checks import plain_text
from dex_jax.runs._rows import drop_rows_after, read_figure

T = TypeVar("T")

TRAIN, VALIDATION = "metrics.csv", "validation.csv"
_QUIET_SECONDS = 10.0  # between two lines where the output is not a terminal
_FEW_STEPS = 10  # of so many, starting up takes most of the time


class Journal:
    """Writes what a run does, for people (screen) and for programs (CSV, TensorBoard).

    Args:
        workdir: the run's folder.
        steps: in the whole run.
        start: steps already done; later rows of an interrupted run are dropped, so
            that the files read as if it had never stopped.
        batch_size: images in a step, for the rate.
        active: False for all but the first of several processes: says and writes
            nothing.
        console: where to write; a terminal gets a live bar, anything else a line now
            and then.

    Raises:
        RunError: a CSV file in the folder is no record of a run.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        steps: int,
        start: int,
        batch_size: int,
        active: bool = True,
        console: Console | None = None,
    ):
        self.console = console or Console(
            soft_wrap=True, highlight=False, quiet=not active
        )
        self._folder = Path(workdir)
        self._steps, self._batch = steps, batch_size
        self.waited = 0.0  # seconds for data, in all
        self._times: deque[tuple[int, float, float]] = deque(maxlen=50)
        self._first: tuple[int, float, float] | None = None
        self._latest = (start, 0.0, 0.0)
        self._said = 0.0
        self._active, self._board = active, None
        for name in (TRAIN, VALIDATION):
            self.drop_rows(name, start)
        if active:
            board = str(self._folder / "tensorboard")
            self._board = SummaryWriter(board, purge_step=start + 1)
        self._bar = Progress(
            TextColumn("step"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=steps, completed=start)
        self._bar.start()

    def say(self, text: str) -> None:
        """Prints lines above the bar; nothing in them is markup or steers a screen."""
        self.console.print(Text(plain_text(text, lines=True)))

    def waits(self, batches: Iterable[T]) -> Iterator[T]:
        """Hands batches on and counts how long each was waited for."""
        begin = time.monotonic()
        for batch in batches:
            self.waited += time.monotonic() - begin
            yield batch
            begin = time.monotonic()

    def tick(self, step: int, loss: float) -> None:
        """Counts a finished step and shows loss, rate and remaining time."""
        now = time.monotonic()
        self._latest = (step, now, self.waited)
        self._times.append(self._latest)
        self._first = self._first or self._latest
        text = f"loss {loss:.3f}  {self.rate():.1f} images/s  {self._eta(step)} left"
        self._bar.update(self._task, completed=step, description=text)
        if not self.console.is_terminal and (
            now - self._said > _QUIET_SECONDS or step == self._steps
        ):
            self._said = now
            self.say(f"step {step}/{self._steps}  {text}")

    def pause(self) -> None:
        """Keeps what comes next (a validation, say) out of the rate."""
        self._times.clear()

    def rate(self) -> float:
        """Images a second over the last steps; 0 before two steps are done."""
        if len(self._times) < 2:
            return 0.0
        (first, begin, _), (last, end, _) = self._times[0], self._times[-1]
        return (last - first) * self._batch / max(end - begin, 1e-9)

    def data_wait(self) -> float:
        """Share of the time of the last steps spent waiting for data, in [0, 1]."""
        if len(self._times) < 2:
            return 0.0
        (_, begin, before), (_, end, after) = self._times[0], self._times[-1]
        return min((after - before) / max(end - begin, 1e-9), 1.0)

    def waiting_share(self) -> float | None:
        """Share of the time since the first step spent waiting for data, in [0, 1].

        None where too few steps were made for a figure that says something.
        """
        first, begin, before = self._first or self._latest
        last, end, after = self._latest
        if last - first < _FEW_STEPS:
            return None
        return min((after - before) / max(end - begin, 1e-9), 1.0)

    def _eta(self, step: int) -> str:
        rate = self.rate()
        if not rate:
            return "--:--"
        return clock((self._steps - step) * self._batch / rate)

    def row(
        self,
        kind: str,
        step: int,
        values: Mapping[str, float],
        per_part: Sequence[float] = (),
    ) -> None:
        """Appends one row to a CSV file and the same figures to TensorBoard."""
        if self._board is None:
            return
        figures = {"step": step, **values}
        figures |= {f"part_{i:02d}": value for i, value in enumerate(per_part)}
        path = self._folder / kind
        fresh = not path.exists()
        with path.open("a", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            if fresh:
                writer.writerow(figures)
            writer.writerow(
                f"{v:.9g}" if isinstance(v, float) else v for v in figures.values()
            )
        prefix = Path(kind).stem
        for name, value in figures.items():
            if name != "step":
                self._board.add_scalar(f"{prefix}/{name}", value, step)

    def figure(self, kind: str, step: int, name: str) -> float | None:
        """Reads one figure of a step from a CSV file; None where it is not there.

        Raises:
            RunError: the file is no record of a run.
        """
        return read_figure(self._folder / kind, step, name)

    def drop_rows(self, kind: str, step: int) -> None:
        """Takes the rows after a step out of a CSV file, as if it had ended there.

        Raises:
            RunError: the file is no record of a run.
        """
        path = self._folder / kind
        if not self._active or not os.path.lexists(path):
            return
        if damaged := drop_rows_after(path, step):
            self.say(f"{path}: {damaged} lines were no rows and are left out")

    def close(self) -> None:
        """Stops the bar and flushes TensorBoard."""
        self._bar.stop()
        if self._board is not None:
            self._board.close()


def clock(seconds: float) -> str:
    """A duration as people read it: `1:02:03` or `02:03`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes:02d}:{whole % 60:02d}"
