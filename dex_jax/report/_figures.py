"""The figures, drawn with matplotlib, which is loaded here and nowhere else."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dex_jax._checks import plain_text
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import CameraMatrix, Result, Swept, label_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "#8a8f98"
HUES = (
    "#0f6fde",
    "#e8590c",
    "#2b8a3e",
    "#ae3ec9",
    "#c92a2a",
    "#0b7285",
    "#f08c00",
    "#5f3dc4",
    "#d6336c",
    "#66a80f",
)
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.edgecolor": "#9aa0a8",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#495057",
    "ytick.color": "#495057",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dex_jax",
    "pdf.fonttype": 42,
    "figure.facecolor": "white",
    # A user's settings may ask for TeX, which would run what names hold.
    "text.usetex": False,
}
# Longer words would squeeze the axes that they stand beside.
_LONGEST, _LONGEST_LABEL, _LONGEST_TICK = 80, 40, 24
_LETTER = 0.08  # inches


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of all figures; the caller's own settings stay as they are."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Names come in all writing systems, which no font has in full.
        warnings.filterwarnings("ignore", message=r"(?s)Glyph .* missing from")
        # Letters may be wider than is reckoned with; the figure is drawn all the same.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


def figure_text(text: str, *, longest: int = _LONGEST) -> str:
    r"""Text that matplotlib draws letter by letter, shortened in its middle.

    Example:
        >>> figure_text("$x^{_$.jpg"), len(figure_text("x" * 1000))
        ('\\$x^{_\\$.jpg', 80)
    """
    text = plain_text(text)
    if len(text) > longest:
        half = longest // 2
        text = f"{text[: half - 3]}...{text[-half:]}"
    # Between two dollar signs matplotlib reads formulas, of which many are errors.
    return text.replace("$", r"\$")


def new_figure(width: float, height: float, *, row_gap: float = 0.04) -> "Figure":
    """Makes an empty figure that no global state knows of, sizes in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(h_pad=row_gap)
    return Figure(figsize=(width, height), layout=engine)


def save_figure(figure: "Figure", folder: Path, name: str, *, dpi: int = 160) -> None:
    """Writes `name.png` and `name.pdf`."""
    with style():
        figure.savefig(folder / f"{name}.png", dpi=dpi)
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})


def to_svg(figure: "Figure") -> str:
    """Returns a figure as SVG text without the XML prologue."""
    out = io.StringIO()
    with style():
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def colours(results: Sequence[Result]) -> list[str]:
    """One colour a chain, grey for the baseline."""
    return [BASELINE, *(HUES[i % len(HUES)] for i in range(len(results) - 1))]


def cmc_figure(results: Sequence[Result]) -> "Figure":
    """Draws the share of queries with a hit among the first 1 to 20 images."""
    ranks = 20
    with style():
        figure = new_figure(7, 4.2)
        axes = figure.add_subplot()
        x = np.arange(1, ranks + 1)
        for result, colour in zip(results, colours(results), strict=True):
            if result.scored is not None:
                y = 100 * result.scored.cmc[:ranks]
                axes.plot(x, y, color=colour, label=_label(result), linewidth=1.8)
        axes.set(xlabel="rank", ylabel="queries with a hit, %", xlim=(1, ranks))
        axes.set_xticks([1, 5, 10, 15, 20])
        axes.set_title("Cumulative match characteristic")
        _legend(axes)
    return figure


def bars_figure(results: Sequence[Result]) -> "Figure":
    """Draws mAP with its 95 % interval and the paper's figure beside it."""
    with style():
        figure = new_figure(7, 0.9 + 0.36 * len(results))
        axes = figure.add_subplot()
        rows = np.arange(len(results))[::-1]
        for y, result, colour in zip(rows, results, colours(results), strict=True):
            if result.scored is None:
                continue
            mean = 100 * result.scored.mean_ap
            axes.barh(y, mean, color=colour, alpha=0.85, height=0.62)
            if result.interval is not None and result.interval.known:
                ends = [100 * result.interval.low, 100 * result.interval.high]
                axes.plot(ends, [y, y], color="#212529", linewidth=1.4)
            axes.text(1, y, f"{mean:.1f}", va="center", color="white", weight="bold")
            paper = result.row.paper[0]
            if paper is not None:
                axes.plot(paper, y, "D", color="#212529", mfc="white", markersize=5)
        axes.set_yticks(rows, [_label(result) for result in results])
        axes.grid(visible=False, axis="y")
        axes.set(
            xlim=(0, 100), xlabel="mAP, %; line: 95 % interval, diamond: the paper"
        )
        axes.set_title("Mean average precision")
    return figure


def error_figure(results: Sequence[Result]) -> "Figure":
    """Draws false non-matches against false matches, both logarithmic."""
    with style():
        figure = new_figure(7, 4.2)
        axes = figure.add_subplot()
        for result, colour in zip(results, colours(results), strict=True):
            found = result.verification
            if found is not None:
                y = 100 * found.false_non_match_rate
                x = 100 * found.false_match_rate
                axes.plot(x, y, color=colour, label=_label(result), linewidth=1.8)
        axes.set(xscale="log", xlabel="false matches, %", ylabel="false non-matches, %")
        axes.set_ylim(bottom=0)
        axes.set_title("Same vehicle or not: errors of a threshold on the score")
        _legend(axes)
    return figure


def camera_figure(
    matrices: Sequence[tuple[str, CameraMatrix]], file: EmbeddingFile
) -> "Figure":
    """Draws mAP from each query camera to each gallery camera.

    Args:
        matrices: each with the label of its chain.
        file: knows what the cameras are called.
    """

    def words(cameras: Sequence[int]) -> list[str]:
        return [label_word(file, "cameras", camera) for camera in cameras]

    with style():
        cells = max(len(matrix.gallery_cameras) for _, matrix in matrices)
        every = [m.gallery_cameras + m.query_cameras for _, m in matrices]
        letters = max(len(word) for cameras in every for word in words(cameras))
        side = float(np.clip(0.4 * cells, 2.6, 8))
        side += _LETTER * min(letters, _LONGEST_TICK)
        figure = new_figure(1.2 + len(matrices) * (side + 0.4), 1.2 + side)
        every = figure.subplots(1, len(matrices), squeeze=False)[0]
        image = None
        for axes, (label, matrix) in zip(every, matrices, strict=True):
            image = axes.imshow(100 * matrix.mean_ap, vmin=0, vmax=100, cmap="viridis")
            columns, rows = matrix.gallery_cameras, matrix.query_cameras
            camera_ticks(axes, words(columns), words(rows))
            axes.set(xlabel="gallery camera", ylabel="query camera")
            axes.set_title(figure_text(label, longest=_LONGEST_LABEL))
            axes.grid(visible=False)
            write_cells(axes, 100 * matrix.mean_ap)
        if image is not None:
            figure.colorbar(image, ax=every, label="mAP, %", shrink=0.8)
    return figure


def sweep_figure(swept: Swept) -> "Figure":
    """Draws the grid of a sweep: a curve for one axis, a heat map for two."""
    with style():
        figure = new_figure(6, 4)
        axes = figure.add_subplot()
        first, *rest = swept.grid.axes
        axes.set_title(figure_text(f"mAP of {swept.grid.pipeline}"))
        if not rest:
            axes.plot(first.values, 100 * swept.mean_ap, "o-", color=HUES[0])
            axes.set(xlabel=first.name, ylabel="mAP, %")
            return figure
        cells = 100 * swept.mean_ap
        image = axes.imshow(cells, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(rest[0].values)), [f"{v:g}" for v in rest[0].values])
        axes.set_yticks(range(len(first.values)), [f"{v:g}" for v in first.values])
        axes.set(xlabel=rest[0].name, ylabel=first.name)
        axes.grid(visible=False)
        write_cells(axes, cells)
        figure.colorbar(image, ax=axes, label="mAP, %")
    return figure


def camera_ticks(axes: "Axes", columns: Sequence[str], rows: Sequence[str]) -> None:
    """Names the columns and rows of a heat map of cameras."""
    columns, rows = (
        [figure_text(word, longest=_LONGEST_TICK) for word in side]
        for side in (columns, rows)
    )
    every = -(-max(len(columns), len(rows)) // 24)  # labels would overlap otherwise
    turned = 90 if max(len(column) for column in columns) > 3 else 0
    axes.set_xticks(range(len(columns))[::every], columns[::every])
    axes.tick_params(axis="x", rotation=turned)
    axes.set_yticks(range(len(rows))[::every], rows[::every])


def write_cells(axes: "Axes", cells: np.ndarray, *, whole: bool = False) -> None:
    """Writes the figures into the cells of a heat map, unless they are too many."""
    if cells.size > 150:
        return
    low, high = axes.get_images()[0].get_clim()
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            dark = value < low + 0.6 * (high - low)
            axes.text(
                column,
                row,
                f"{value:.0f}" if whole or high - low > 20 else f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )


def _label(result: Result) -> str:
    return figure_text(result.row.label, longest=_LONGEST_LABEL)


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
