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
from tensorboardX import SummaryWriter

T = TypeVar("T")

TRAIN, VALIDATION = "metrics.csv", "validation.csv"
_QUIET_SECONDS = 10.0  # between two lines where the output is not a terminal


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
        self._said = 0.0
        self._board = None
        if active:
            for name in (TRAIN, VALIDATION):
                _drop_rows_after(self._folder / name, start)
            board = str(self._folder / "tensorboard")
            self._board = SummaryWriter(board, purge_step=start + 1)
        self._bar = Progress(
            TextColumn("step"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=steps, completed=start)
        self._bar.start()

    def say(self, text: str) -> None:
        """Prints one line above the bar."""
        self.console.print(text, markup=False)

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
        self._times.append((step, now, self.waited))
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


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    # A kill in the middle of a write can leave a last line without all its fields.
    kept = [
        row
        for row in rows[1:]
        if len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step
    ]
    draft = path.with_suffix(".tmp")
    with draft.open("w", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([*rows[:1], *kept])
    os.replace(draft, path)
