"""Results to look at: tables, figures and the page of queries."""

from dex_jax.report._data_figure import data_figure
from dex_jax.report._folder import (
    FIGURES_FILE,
    PAGE,
    Report,
    check_file,
    check_folder,
    write_report,
)
from dex_jax.report._tables import screen_table, sweep_table

__all__ = [
    "FIGURES_FILE",
    "PAGE",
    "Report",
    "check_file",
    "check_folder",
    "data_figure",
    "screen_table",
    "sweep_table",
    "write_report",
]
