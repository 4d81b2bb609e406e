"""Results to look at: tables, figures and the page of queries."""

from dex_jax._checks import missing_extra, require

try:
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
except ModuleNotFoundError as error:
    raise missing_extra(error, "report") from None

require("jinja2", "matplotlib", extra="report")

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
