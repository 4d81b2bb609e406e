"""The tables: on screen, and one line a query as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table as ScreenTable

from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import PAPER_DATA, Comparison, Result, Swept


def screen_table(
    title: str, results: Sequence[Result], comparisons: Sequence[Comparison | None]
) -> ScreenTable:
    """Lays results out for the terminal, the paper's figures beside them."""
    with_paper = any(figure is not None for r in results for figure in r.row.paper)
    table = ScreenTable(title=title, title_justify="left", box=box.SIMPLE)
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
        cells = [result.row.label, *_figures(result)]
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
    if result.scored is None or result.interval is None:
        return ["-"] * 4
    scored, interval = result.scored, result.interval
    return [
        percent(scored.mean_ap),
        f"{percent(interval.low)}-{percent(interval.high)}",
        percent(scored.cmc[0]),
        percent(scored.cmc[4]),
    ]


def _gain(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", ""]
    return [
        f"{100 * comparison.difference.mean:+.1f}",
        f"{comparison.p_value:.3f}" if comparison.p_value >= 0.001 else "<0.001",
    ]


def sweep_table(swept: Swept) -> ScreenTable:
    """Lays the grid of a sweep out for the terminal; the best cell is bold."""
    first, *rest = swept.grid.axes
    columns = [f"{v:g}" for v in rest[0].values] if rest else ["mAP"]
    table = ScreenTable(title=f"mAP of {swept.grid.pipeline}", title_justify="left")
    heads = " / ".join(axis.name for axis in swept.grid.axes)
    table.add_column(heads)
    for column in columns:
        table.add_column(column, justify="right")
    cells = swept.mean_ap.reshape(len(first.values), -1)
    for value, row in zip(first.values, cells, strict=True):
        table.add_row(
            f"{value:g}",
            *(
                f"[bold]{100 * x:.1f}[/]" if x == cells.max() else f"{100 * x:.1f}"
                for x in row
            ),
        )
    return table


def percent(value: float) -> str:
    """Writes a share as the paper does: 0.724 as 72.4."""
    return f"{100 * value:.1f}"


def write_query_csv(path: Path, file: EmbeddingFile, results: Sequence[Result]) -> None:
    """Writes the average precision of every query under every chain."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["query", "identity", "camera", *(f"AP {r.row.label}" for r in results)]
        )
        for row, name in enumerate(file.query_names):
            identity, camera = (
                "" if labels is None else labels[row]
                for labels in (file.query_identities, file.query_cameras)
            )
            figures = [
                ""
                if result.scored is None or not result.scored.valid[row]
                else f"{result.scored.average_precision[row]:.6f}"
                for result in results
            ]
            writer.writerow([name, identity, camera, *figures])
