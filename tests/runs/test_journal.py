"""What a run writes down, and how it reads after an interruption."""

import csv
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from dex_jax.runs._journal import TRAIN, Journal, clock


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def journal(folder: Path, *, start: int = 0, **options) -> tuple[Journal, io.StringIO]:
    page = io.StringIO()
    console = Console(file=page, width=120)
    made = Journal(
        folder, steps=10, start=start, batch_size=4, console=console, **options
    )
    return made, page


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (61.4, "01:01"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text


def test_rows_reach_the_file_and_tensorboard(tmp_path: Path):
    made, _ = journal(tmp_path)
    made.row(TRAIN, 1, {"loss": 1.5}, [0.25, 0.5])
    made.row(TRAIN, 2, {"loss": 1.25}, [0.125, 0.5])
    made.close()
    assert rows(tmp_path / TRAIN) == [
        {"step": "1", "loss": "1.5", "part_00": "0.25", "part_01": "0.5"},
        {"step": "2", "loss": "1.25", "part_00": "0.125", "part_01": "0.5"},
    ]
    assert any((tmp_path / "tensorboard").iterdir())


def test_rows_after_the_restored_step_are_dropped(tmp_path: Path):
    made, _ = journal(tmp_path)
    for step in (1, 2, 3):
        made.row(TRAIN, step, {"loss": 1.0, "rate": 2.0})
    made.close()
    with (tmp_path / TRAIN).open("a") as handle:
        handle.write("2,0.")  # a kill in the middle of a write
    again, _ = journal(tmp_path, start=2)
    again.close()
    assert [row["step"] for row in rows(tmp_path / TRAIN)] == ["1", "2"]


def test_a_tick_says_loss_rate_and_remaining_time(tmp_path: Path):
    made, page = journal(tmp_path)
    made.tick(1, 2.5)
    made.tick(10, 1.5)
    made.close()
    text = page.getvalue()
    assert "step 1/10  loss 2.500  0.0 images/s  --:-- left" in text
    assert "step 10/10  loss 1.500" in text
    assert made.rate() > 0


def test_a_pause_is_not_in_the_rate(tmp_path: Path):
    made, _ = journal(tmp_path)
    made.tick(1, 1.0)
    made.tick(2, 1.0)
    made.pause()
    assert made.rate() == 0
    made.close()


def test_waiting_for_data_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moments = iter([0.0, 3.0, 4.0, 4.0, 5.0, 8.0])
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("dex_jax.runs._journal.time", clock)
    made = Journal(tmp_path, steps=2, start=0, batch_size=4, active=False)
    batches = made.waits("ab")
    assert next(batches) == "a"  # from 0 to 3
    made.tick(1, 1.0)  # at 4
    assert made.data_wait() == 0
    assert next(batches) == "b"  # from 4 to 5
    made.tick(2, 1.0)  # at 8
    assert made.data_wait() == 0.25
    assert made.waited == 4
    made.pause()
    assert made.data_wait() == 0


def test_the_other_processes_are_silent(tmp_path: Path):
    made = Journal(tmp_path, steps=2, start=0, batch_size=1, active=False)
    made.say("nothing")
    made.row(TRAIN, 1, {"loss": 1.0})
    made.close()
    assert not list(tmp_path.iterdir())


def test_text_of_files_is_no_markup(tmp_path: Path):
    made, page = journal(tmp_path)
    made.say("[/b] [red]x[/] :car: \x1b[2J \ud800 \u202e.jpg")
    made.close()
    assert page.getvalue() == "[/b] [red]x[/] :car: \\x1b[2J \\ud800 \\u202e.jpg\n"


def test_a_share_of_waiting_needs_steps_to_speak_of(tmp_path: Path, monkeypatch):
    # Each batch is waited for for one second of four; the first one for a hundred.
    moments = iter([0, 100, *(100 + 4 * n + k for n in range(11) for k in (3, 3, 4))])
    clock = SimpleNamespace(monotonic=lambda: float(next(moments)))
    monkeypatch.setattr("dex_jax.runs._journal.time", clock)
    made = Journal(tmp_path, steps=11, start=0, batch_size=4, active=False)
    assert made.waiting_share() is None
    shares = []
    for step, _ in enumerate(made.waits(range(11)), start=1):
        made.tick(step, 1.0)
        shares.append(made.waiting_share())
    assert shares == [None] * 10 + [0.25]


def test_a_file_that_was_only_begun_gets_its_names(tmp_path: Path):
    (tmp_path / TRAIN).write_text("")
    made, _ = journal(tmp_path)
    made.row(TRAIN, 1, {"loss": 1.5})
    made.close()
    assert rows(tmp_path / TRAIN) == [{"step": "1", "loss": "1.5"}]
