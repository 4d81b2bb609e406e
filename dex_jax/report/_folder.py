"""The report folder: figures of merit as JSON and CSV, pictures, one HTML page."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as ScreenTable

from dex_jax._checks import plain_text
from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Comparison, Result, Swept, compare, interval_notes
from dex_jax.report._figures import (
    bars_figure,
    camera_figure,
    cmc_figure,
    error_figure,
    save_figure,
    sweep_figure,
    to_svg,
)
from dex_jax.report._page import best_chain, render_page
from dex_jax.report._place import (
    FIGURES_FILE,
    PAGE,
    QUERIES_FILE,
    WRITTEN_BY,
    whole_folder,
)
from dex_jax.report._ranks import (
    explain,
    explain_figure,
    headline_queries,
    ranks_figure,
)
from dex_jax.report._record import as_json, result_record, versions
from dex_jax.report._tables import screen_table, sweep_table, write_query_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Report:
    """The results of one table on one data set, ready to be looked at.

    Attributes:
        title: what was measured.
        file: names and labels of Q queries and G gallery images.
        protocol: how the results were scored.
        results: one a chain, the baseline first.
        images: the images of both sides, `{"query": ..., "gallery": ...}`; without
            them the gallery of the page shows names.
        facts: what else belongs into `report.json`: config, seeds, timings.
        notes: sentences a reader must know.
        sweep: the grid of `sweep`, if one was run.
        explained: queries whose ranking is explained by a picture each.

    Example:
        >>> import numpy as np
        >>> from dex_jax.evaluation import rows_for, run_row
        >>> file = EmbeddingFile(
        ...     np.eye(2, 4), np.eye(4), ("p", "q"), ("a", "b", "c", "d"),
        ...     query_identities=np.array([0, 1]),
        ...     gallery_identities=np.array([0, 1, 0, 1]),
        ... )
        >>> protocol = Protocol("example")
        >>> results = [run_row(file, row, protocol) for row in rows_for("none").rows]
        >>> Report("Example", file, protocol, results).lines()[0]
        'example: same-camera images kept, mAP over all positives'
    """

    title: str
    file: EmbeddingFile
    protocol: Protocol
    results: Sequence[Result]
    images: Mapping[str, Images] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sweep: Swept | None = None
    explained: tuple[int, ...] = ()

    def comparisons(self) -> list[Comparison | None]:
        """Returns the paired test of every result against the first."""
        return compare(self.results)

    def lines(self) -> list[str]:
        """Says what the figures rest on: protocol, sizes, queries left out, notes."""
        said = [self.protocol.describe()]
        queries, gallery = len(self.file.query_names), len(self.file.gallery_names)
        sizes = f"{queries} queries, {gallery} gallery images"
        scored = self.results[0].scored
        if scored is None:
            said.append(f"{sizes}; no identities, so nothing is scored")
        else:
            left_out = int((~scored.valid).sum())
            said.append(f"{sizes}; {left_out} queries without a positive left out")
        if len(self.results[0].draws) > 1:
            said.append(
                f"figures are means over {self.protocol.draws} random galleries; "
                "lists, figures of single queries and thresholds are of the first"
            )
        said.extend(interval_notes(self.results))
        said.extend(self.notes)
        said.extend(dict.fromkeys(r.note for r in self.results if r.note))
        return said

    def screen(self) -> ScreenTable:
        """Returns the table for the terminal."""
        return screen_table(self.title, self.results, self.comparisons())

    def print(self) -> None:
        """Prints the table, what it rests on, and the grid of a sweep."""
        console = _console()
        console.print(self.screen())
        for line in self.lines():
            console.print(plain_text(line))
        self.print_sweep()

    def print_sweep(self) -> None:
        """Prints the grid of a sweep alone."""
        if self.sweep is not None:
            _console().print(sweep_table(self.sweep))

    def explain(self, query: int, *, chain: int | None = None) -> "Figure":
        """Draws why images rise or fall for a query.

        Args:
            query: its row.
            chain: which result; the one of the highest mAP by default.

        Returns:
            A matplotlib figure: the first images of both lists with their ranks before
            and after, which are reciprocal neighbours, and the tracklets' shares in
            the expanded query.

        Raises:
            ValueError: no such query or result.
        """
        queries = len(self.file.query_names)
        if not 0 <= query < queries:
            raise ValueError(f"query: expected a row below {queries}, got {query}")
        chain = best_chain(self.results) if chain is None else chain
        if not 0 <= chain < len(self.results):
            raise ValueError(
                f"chain: expected a row below {len(self.results)}, got {chain}"
            )
        after = self.results[chain]
        found = explain(self.file, after, query)
        return explain_figure(self.file, self.protocol, after, found, self.images)

    def record(self) -> dict[str, Any]:
        """Returns the content of `report.json`, which any JSON reader takes."""
        content = {
            "written_by": WRITTEN_BY,
            "title": self.title,
            "protocol": self.protocol.describe(),
            "sizes": {
                "query": len(self.file.query_names),
                "gallery": len(self.file.gallery_names),
                "dimension": int(self.file.query_features.shape[1]),
            },
            "notes": self.lines()[1:],
            "results": [
                result_record(result, comparison)
                for result, comparison in zip(
                    self.results, self.comparisons(), strict=True
                )
            ],
            **({"sweep": self.sweep.record()} if self.sweep else {}),
            "versions": versions(),
            "embeddings": self.file.meta,
        }
        return as_json({**content, **self.facts, "written_by": WRITTEN_BY})


def _console() -> Console:
    return Console(width=max(Console().width, 110), markup=False, emoji=False)


def write_report(
    report: Report,
    folder: str | os.PathLike,
    *,
    force: bool = False,
    brief: bool = False,
    say: Callable[[str], object] = print,
) -> Path:
    """Writes the report; the folder appears whole or not at all.

    Args:
        report: what to write.
        folder: where.
        force: replace a report that is there.
        brief: write the figures of merit alone, without pictures and page.
        say: where progress lines go.

    Returns:
        The folder.

    Raises:
        FileExistsError: see `check_folder`.
        OSError: it cannot be written, as on a full disk; an older report stays.
    """
    folder = Path(folder)
    with whole_folder(folder, force=force) as partial:
        _write_numbers(report, partial)
        if not brief:
            _write_pictures(report, partial, say)
    return folder


def _write_numbers(report: Report, folder: Path) -> None:
    text = json.dumps(report.record(), indent=1, allow_nan=False)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    write_query_csv(folder / QUERIES_FILE, report.file, report.results)


def _write_pictures(report: Report, folder: Path, say: Callable[[str], object]) -> None:
    figures = _figures(report)
    for name, (_, figure) in figures.items():
        save_figure(figure, folder, name)
    page = render_page(
        title=report.title,
        lines=report.lines(),
        file=report.file,
        protocol=report.protocol,
        results=report.results,
        comparisons=report.comparisons(),
        figures={caption: to_svg(figure) for caption, figure in figures.values()},
        images=report.images,
        say=say,
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    best = report.results[best_chain(report.results)]
    if report.images is not None:
        pair = (report.results[0], best)
        queries = headline_queries(*pair)
        figure = ranks_figure(
            report.file, report.protocol, pair, report.images, queries
        )
        save_figure(figure, folder, "ranks", dpi=100)
    for query in report.explained:
        save_figure(report.explain(query), folder, f"explain_{query:06d}", dpi=100)


def _figures(report: Report) -> dict[str, tuple[str, "Figure"]]:
    """File name -> caption and figure, of those the results allow."""
    results, figures = report.results, {}
    if results[0].scored is not None:
        figures["map"] = ("mAP of every chain", bars_figure(results))
        figures["cmc"] = ("CMC curves", cmc_figure(results))
    if results[0].verification is not None:
        figures["errors"] = (
            "False matches and false non-matches",
            error_figure(results),
        )
    shown = dict.fromkeys([results[0], results[best_chain(results)]])
    matrices = [(r.row.label, r.cameras) for r in shown if r.cameras is not None]
    if matrices:
        figures["cameras"] = (
            "mAP by pair of cameras",
            camera_figure(matrices, report.file),
        )
    if report.sweep is not None:
        figures["sweep"] = ("Sweep", sweep_figure(report.sweep))
    return figures
