"""The report folder: figures of merit as JSON and CSV, pictures, one HTML page."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table as ScreenTable

import dex_jax
from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Comparison, Result, Swept, compare
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
from dex_jax.report._ranks import (
    explain,
    explain_figure,
    headline_queries,
    ranks_figure,
)
from dex_jax.report._tables import screen_table, sweep_table, write_query_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, FIGURES_FILE = "index.html", "report.json"


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
        said.extend(self.notes)
        said.extend(dict.fromkeys(r.note for r in self.results if r.note))
        return said

    def screen(self) -> ScreenTable:
        """Returns the table for the terminal."""
        return screen_table(self.title, self.results, self.comparisons())

    def print(self) -> None:
        """Prints the table, what it rests on, and the grid of a sweep."""
        console = Console(width=max(Console().width, 110))
        console.print(self.screen())
        for line in self.lines():
            console.print(line)
        if self.sweep is not None:
            console.print(sweep_table(self.sweep))

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
        """Returns the content of `report.json`."""
        return {
            "title": self.title,
            "protocol": self.protocol.describe(),
            "sizes": {
                "query": len(self.file.query_names),
                "gallery": len(self.file.gallery_names),
                "dimension": int(self.file.query_features.shape[1]),
            },
            "notes": self.lines()[1:],
            "results": [
                _record(result, comparison)
                for result, comparison in zip(
                    self.results, self.comparisons(), strict=True
                )
            ],
            **({"sweep": self.sweep.record()} if self.sweep else {}),
            "versions": _versions(),
            "embeddings": self.file.meta,
            **self.facts,
        }


def check_folder(folder: str | os.PathLike, *, force: bool = False) -> Path:
    """Tells before any work whether a report may be written there.

    Raises:
        FileExistsError: there is a report and `force` is not given, or there is
            something else, or another report inside, which are never replaced.
        NotADirectoryError: it would lie below a file.
    """
    folder = Path(folder)
    _check_parents(folder, "report")
    if folder.is_dir() and not any(folder.iterdir()):
        return folder
    if folder.exists() and not (folder / FIGURES_FILE).is_file():
        raise FileExistsError(
            f"{folder}: exists and is no report; choose another --out"
        )
    if folder.exists() and not force:
        raise FileExistsError(
            f"{folder}: holds a report; --force replaces it, --out writes elsewhere"
        )
    if folder.exists() and (inside := list(folder.glob(f"*/{FIGURES_FILE}"))):
        raise FileExistsError(
            f"{folder}: holds other reports too, which --force does not replace: "
            f"{inside[0].parent.name}; choose another --out"
        )
    return folder


def check_file(path: Path, name: str, *, suffix: str = "") -> None:
    """Tells before any work whether a file may be written there.

    Args:
        path: the file.
        name: what errors call it.
        suffix: what the file's name must end in.

    Raises:
        ValueError: another ending.
        IsADirectoryError: a folder is there.
        NotADirectoryError: it would lie below a file.
    """
    if suffix and path.suffix != suffix:
        raise ValueError(f"{name}: expected a name ending in {suffix}, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{name}: {path} is a folder, expected a file's name")
    _check_parents(path, name)


def _check_parents(path: Path, name: str) -> None:
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise NotADirectoryError(f"{name}: {path} lies below the file {parent}")
            return


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
    """
    folder = check_folder(folder, force=force)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        _write_numbers(report, partial)
        if not brief:
            _write_pictures(report, partial, say)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_numbers(report: Report, folder: Path) -> None:
    text = json.dumps(report.record(), indent=1, allow_nan=False, default=_plain)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    write_query_csv(folder / "queries.csv", report.file, report.results)


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
        figures["cameras"] = ("mAP by pair of cameras", camera_figure(matrices))
    if report.sweep is not None:
        figures["sweep"] = ("Sweep", sweep_figure(report.sweep))
    return figures


def _record(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "label": result.row.label,
        "chain": result.row.chain,
        "scales": result.row.scales,
        "seconds": round(result.seconds, 3),
        "paper_percent": dict(
            zip(("mAP", "CMC@1", "CMC@5"), result.row.paper, strict=True)
        ),
    }
    if result.scored is not None and result.interval is not None:
        record |= {
            "mAP": result.scored.mean_ap,
            "mAP_95": [result.interval.low, result.interval.high],
            "CMC": result.scored.cmc,
            "mINP": result.scored.mean_inp,
            "mAP@100": result.scored.map_at_100,
            "queries_scored": int(result.scored.valid.sum()),
        }
    if (spread := result.spread()) is not None:
        record["random_galleries"] = {
            "mAP": [draw.mean_ap for draw in result.draws],
            "mAP_std": spread[0],
            "CMC_std": spread[1],
        }
    if comparison is not None:
        record["against_baseline"] = comparison._asdict()
    if result.cameras is not None:
        record["cameras"] = {
            "query": result.cameras.query_cameras,
            "gallery": result.cameras.gallery_cameras,
            "mAP": [
                [None if np.isnan(x) else round(float(x), 6) for x in row]
                for row in result.cameras.mean_ap
            ],
            "queries": result.cameras.queries.tolist(),
        }
    if result.verification is not None:
        found = result.verification
        record["verification"] = {
            "suggested_threshold": found.suggested,
            "suggested_false_match_rate": found.suggested_rate,
            "pairs": {"genuine": found.genuine, "impostor": found.impostor},
            "at_false_match_rate": {
                str(rate): dict(zip(("threshold", "FNMR"), found.at(rate), strict=True))
                for rate in (0.1, 0.01, 0.001, 0.0001)
            },
        }
    return record


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return [round(float(x), 6) for x in value.ravel()]
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"facts: cannot be written as JSON: {type(value).__name__}")


def _versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "numpy", "matplotlib")
    return {
        "dex_jax": dex_jax.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
