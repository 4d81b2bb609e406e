"""The report folder: figures of merit as JSON and CSV, pictures, one HTML page."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as ScreenTable

import dex_jax
from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.report._results import Result
from dex_jax.report._statistics import Comparison
from dex_jax.report._sweep import Swept
from dex_jax.report._tables import compare, screen_table, write_query_csv

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
        return compare(self.results, self.file)

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
        said.extend(self.notes)
        said.extend(dict.fromkeys(r.note for r in self.results if r.note))
        return said

    def screen(self) -> ScreenTable:
        """Returns the table for the terminal."""
        return screen_table(self.title, self.results, self.comparisons())

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
            something else, which is never replaced.
    """
    folder = Path(folder)
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
    return folder


def write_report(
    report: Report,
    folder: str | os.PathLike,
    *,
    force: bool = False,
    say: Callable[[str], object] = print,
) -> Path:
    """Writes the report; the folder appears whole or not at all.

    Args:
        report: what to write.
        folder: where.
        force: replace a report that is there.
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
        _write_files(report, partial, say)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_files(report: Report, folder: Path, say: Callable[[str], object]) -> None:
    text = json.dumps(report.record(), indent=1, allow_nan=False, default=_plain)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    write_query_csv(folder / "queries.csv", report.file, report.results)


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
    if comparison is not None:
        record["against_baseline"] = comparison._asdict()
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
