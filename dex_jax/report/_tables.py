"""The tables: on screen, and one line a query as CSV."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table as ScreenTable
from rich.text import Text

from dex_jax._checks import plain_text
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import PAPER_DATA, Comparison, Result, Swept, label_word

# What makes a spreadsheet take text for a formula; numbers are what they are.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def screen_table(
    title: str, results: Sequence[Result], comparisons: Sequence[Comparison | None]
) -> ScreenTable:
    """Lays results out for the terminal, the paper's figures beside them."""
    with_paper = any(figure is not None for r in results for figure in r.row.paper)
    heading = Text(plain_text(title))
    table = ScreenTable(title=heading, title_justify="left", box=box.SIMPLE)
    if with_paper:
        table.caption = f"paper: {PAPER_DATA}; another data set than ours"
        table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    repeated = results[0].spread() is not None
    spread = ("std mAP, @1",) if repeated else ()
    for name in ("mAP", "95 %", "CMC@1", "CMC@5", *spread, "gain", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    if with_paper:
        table.add_column("paper mAP, @1, @5", justify="right", no_wrap=True)
    for result, comparison in zip(results, comparisons, strict=True):
        cells: list[str | Text] = [Text(plain_text(result.row.label))]
        cells += _figures(result)
        if (deviation := result.spread()) is not None:
            cells.append(f"{percent(deviation[0])}  {percent(deviation[1][0])}")
        cells += _gain(comparison)
        if with_paper:
            cells.append(
                "  ".join("   -" if f is None else f"{f:.1f}" for f in result.row.paper)
            )
        table.add_row(*cells)
    return table


def _figures(result: Result) -> list[str]:
    scored, interval = result.scored, result.interval
    if scored is None:
        return ["-"] * 4
    bounds = "none"
    if interval is not None and interval.known:
        bounds = f"{percent(interval.low)}-{percent(interval.high)}"
    return [
        percent(scored.mean_ap),
        bounds,
        percent(scored.cmc[0]),
        percent(scored.cmc[4]),
    ]


def _gain(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", ""]
    p = f"{comparison.p_value:.3f}" if comparison.p_value >= 0.001 else "<0.001"
    known = comparison.difference.known
    return [f"{100 * comparison.difference.mean:+.1f}", p if known else "none"]


def sweep_table(swept: Swept) -> ScreenTable:
    """Lays the grid of a sweep out for the terminal; the best cell is bold."""
    first, *rest = swept.grid.axes
    columns = [f"{v:g}" for v in rest[0].values] if rest else ["mAP"]
    heading = Text(plain_text(f"mAP of {swept.grid.pipeline}"))
    table = ScreenTable(title=heading, title_justify="left")
    heads = " / ".join(axis.name for axis in swept.grid.axes)
    table.add_column(heads)
    for column in columns:
        table.add_column(column, justify="right")
    cells = swept.mean_ap.reshape(len(first.values), -1)
    for value, row in zip(first.values, cells, strict=True):
        table.add_row(
            f"{value:g}",
            *(Text(f"{100 * x:.1f}", "bold" if x == cells.max() else "") for x in row),
        )
    return table


def percent(value: float) -> str:
    """Writes a share as the paper does: 0.724 as 72.4."""
    return f"{100 * value:.1f}"


def write_query_csv(path: Path, file: EmbeddingFile, results: Sequence[Result]) -> None:
    """Writes the average precision of every query under every chain.

    Text is quoted and written as `cell` says; identities and cameras are the user's own
    words.
    """
    labels = {"identities": file.query_identities, "cameras": file.query_cameras}
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
        chains = (cell(f"AP {result.row.label}") for result in results)
        writer.writerow(["query", "identity", "camera", *chains])
        for row, name in enumerate(file.query_names):
            words = (
                "" if codes is None else label_word(file, kind, int(codes[row]))
                for kind, codes in labels.items()
            )
            figures = [
                ""
                if result.scored is None or not result.scored.valid[row]
                else round(float(result.scored.average_precision[row]), 6)
                for result in results
            ]
            writer.writerow([cell(name), *map(cell, words), *figures])


def cell(text: str) -> str:
    r"""Text for a cell that no spreadsheet runs and no terminal obeys.

    Example:
        >>> cell("a.jpg"), cell("-1"), cell("=1+1.jpg"), cell("two\nlines")
        ('a.jpg', '-1', "'=1+1.jpg", 'two\\nlines')
    """
    text = plain_text(text)
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text
