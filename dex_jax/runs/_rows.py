"""The CSV files of a run, as a kill or damage may have left them."""

from collections.abc import Iterator
from pathlib import Path

from dex_jax._checks import check_file, whole_file
from dex_jax.runs._folder import RunError

_WHAT = "record of a run"
_LONGEST = 2**20  # bytes of a line
_DIGITS = 18  # of a step


def drop_rows_after(path: Path, step: int) -> int:
    """Takes the rows after a step out of a file.

    Returns:
        How many other lines went, being no rows; the last one is not counted, since a
        kill in the middle of a write leaves one.

    Raises:
        RunError: the file begins like none of ours.
    """
    lines = _lines(path)
    header = next(lines, b"")
    if not header.endswith(b"\n"):  # killed while it was begun
        path.unlink()
        return 0
    _check_header(path, header)
    damaged, last_is_row = 0, True
    with whole_file(path) as partial, partial.open("wb") as kept:
        kept.write(header)
        for line in lines:
            found = _step(line, header)
            damaged, last_is_row = damaged + (found is None), found is not None
            if found is not None and found <= step:
                kept.write(line)
    return damaged - (not last_is_row)


def read_figure(path: Path, step: int, name: str) -> float | None:
    """Reads one figure of a step; None where there is none.

    Raises:
        RunError: the file begins like none of ours.
    """
    if not path.exists():
        return None
    lines = _lines(path)
    header = next(lines, b"")
    if not header.endswith(b"\n"):
        return None
    _check_header(path, header)
    names = header.decode(errors="replace").rstrip("\r\n").split(",")
    found = None
    for line in lines:
        if name in names and _step(line, header) == step:
            found = float(line.rstrip(b"\r\n").split(b",")[names.index(name)])
    return found


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with check_file(path, _WHAT).open("rb") as handle:
            yield from iter(lambda: handle.readline(_LONGEST), b"")
    except ValueError as error:
        raise RunError(f"{error}; move it away") from None


def _check_header(path: Path, header: bytes) -> None:
    if not header.startswith(b"step,"):
        raise RunError(
            f"{path}: is no {_WHAT}, its first line does not begin with 'step,'; move "
            "it away"
        )


def _step(line: bytes, header: bytes) -> int | None:
    """The step of a row, None for a line that is no whole row of numbers."""
    first, *figures = line.rstrip(b"\r\n").split(b",")
    whole = line.endswith(b"\n") and len(figures) == header.count(b",")
    if not whole or not first.isdigit() or len(first) > _DIGITS:
        return None
    try:
        for figure in figures:
            float(figure)
    except ValueError:
        return None
    return int(first)
