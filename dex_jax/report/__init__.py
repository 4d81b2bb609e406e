"""Results to look at: tables, figures and the page of queries."""

from dex_jax._checks import missing_extra, plain_text, require

try:
    from dex_jax.report._data_figure import data_figure, save_data_figure
    from dex_jax.report._folder import Report, write_report
    from dex_jax.report._place import (
        FIGURES_FILE,
        PAGE,
        check_apart,
        check_file,
        check_folder,
    )
    from dex_jax.report._tables import screen_table, sweep_table
except ModuleNotFoundError as error:
    raise missing_extra(error, "report") from None

require("jinja2", "matplotlib", extra="report")

__all__ = [
    "FIGURES_FILE",
    "PAGE",
    "Report",
    "check_apart",
    "check_file",
    "check_folder",
    "data_figure",
    "plain_text",
    "save_data_figure",
    "screen_table",
    "sweep_table",
    "write_report",
]
