"""Results to look at: tables, figures, the page of queries, submissions."""

from dex_jax.report._data_figure import data_figure
from dex_jax.report._folder import (
    FIGURES_FILE,
    PAGE,
    Report,
    check_file,
    check_folder,
    write_report,
)
from dex_jax.report._paper import PAPER_DATA, TABLES, Row, Table, rows_for
from dex_jax.report._results import (
    Result,
    rank_all,
    run_row,
    score,
    shared_graphs,
    tracklet_notes,
)
from dex_jax.report._submission import (
    read_ranking,
    read_submission,
    write_submission,
)
from dex_jax.report._sweep import Grid, Swept, read_sweep, sweep

__all__ = [
    "FIGURES_FILE",
    "PAGE",
    "PAPER_DATA",
    "TABLES",
    "Grid",
    "Report",
    "Result",
    "Row",
    "Swept",
    "Table",
    "check_file",
    "check_folder",
    "data_figure",
    "rank_all",
    "read_ranking",
    "read_submission",
    "read_sweep",
    "rows_for",
    "run_row",
    "score",
    "shared_graphs",
    "sweep",
    "tracklet_notes",
    "write_report",
    "write_submission",
]
