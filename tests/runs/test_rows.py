"""The CSV files of a run, as kills and damage may leave them."""

import os
from pathlib import Path

import pytest

from dex_jax import runs
from dex_jax.runs._rows import drop_rows_after, read_figure

ROWS = b"step,loss,rate\n1,2.5,7\n2,1.5,8\n3,0.5,9\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_bytes(ROWS)
    return path


def test_rows_after_a_step_go(file: Path):
    assert drop_rows_after(file, 2) == 0
    assert file.read_bytes() == b"step,loss,rate\n1,2.5,7\n2,1.5,8\n"
    assert [p.name for p in file.parent.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("cut", [b"4", b"4,1.5", b"4,1.5,9", b"4,1.5,9,1\n"])
def test_a_row_that_was_cut_goes_without_a_word(file: Path, cut: bytes):
    file.write_bytes(ROWS + cut)
    assert drop_rows_after(file, 9) == 0
    assert file.read_bytes() == ROWS


@pytest.mark.parametrize(
    "line",
    [b"\xff,1,1\n", "\u00b2,1,1\n".encode(), b"9" * 5000 + b",1,1\n", b"2,x,1\n"],
)
def test_lines_that_are_no_rows_are_counted(file: Path, line: bytes):
    file.write_bytes(ROWS[:15] + line + line + ROWS[15:])
    assert drop_rows_after(file, 9) == 2
    assert file.read_bytes() == ROWS


@pytest.mark.parametrize("begun", [b"", b"st", b"step,loss"])
def test_a_file_that_was_only_begun_is_begun_again(file: Path, begun: bytes):
    file.write_bytes(begun)
    assert read_figure(file, 1, "loss") is None
    assert drop_rows_after(file, 9) == 0
    assert not file.exists()


def test_one_figure_of_a_step(file: Path):
    assert read_figure(file, 2, "loss") == 1.5
    assert read_figure(file, 4, "loss") is None
    assert read_figure(file, 2, "mean_ap") is None
    assert read_figure(file.with_name("none.csv"), 2, "loss") is None


def test_what_is_no_record_stays_and_is_named(file: Path):
    file.write_bytes(b"a,b\n1,2\n")
    for read in (lambda: drop_rows_after(file, 9), lambda: read_figure(file, 1, "b")):
        with pytest.raises(runs.RunError, match=r"metrics\.csv: is no record of a run"):
            read()
    assert file.read_bytes() == b"a,b\n1,2\n"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(runs.RunError, match=r"is a pipe.*move it away"):
        drop_rows_after(file, 9)
