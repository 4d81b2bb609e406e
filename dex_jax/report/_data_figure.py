"""The statistics page of a data set as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dex_jax.data import ReidData, SplitStatistics, statistics
from dex_jax.report._figures import (
    HUES,
    camera_ticks,
    figure_text,
    new_figure,
    style,
    write_cells,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: dict[str, str] = dict(zip(("train", "query", "gallery"), HUES, strict=False))
_COUNTS = ("images", "identities", "cameras", "tracklets")
_BINS = 40


def data_figure(data: ReidData) -> "Figure":
    """Draws what a data set holds; `dex_jax.data.describe` says the same in words.

    Args:
        data: any data set.

    Returns:
        A matplotlib figure: counts by split, images per identity, tracklet lengths,
        and for each split with two or more cameras how many identities each pair of
        cameras shares.
    """
    found = {
        side: statistics(getattr(data, side))
        for side in _COLOURS
        if len(getattr(data, side))
    }
    graphs = {side: s for side, s in found.items() if s.cameras.size > 1}
    with style():
        figure = new_figure(13, 8.2 if graphs else 4)
        above, *below = figure.subfigures(2 if graphs else 1, 1, squeeze=False).ravel()
        counts, images, lengths = above.subplots(1, 3)
        _draw_counts(counts, found)
        _draw_histogram(
            images,
            {k: s.images_per_identity for k, s in found.items()},
            "Images per identity",
            "identities",
        )
        _draw_histogram(
            lengths,
            {k: s.tracklet_lengths for k, s in found.items()},
            "Images per tracklet",
            "tracklets",
        )
        for panel in below:
            places = panel.subplots(1, len(_COLOURS))
            for axes, (name, graph) in zip(places, graphs.items(), strict=False):
                _draw_cameras(axes, name, graph, data.camera_names)
            for axes in places[len(graphs) :]:
                axes.set_axis_off()
        figure.suptitle(figure_text(data.protocol.describe()), fontsize=11)
    return figure


def save_data_figure(data: ReidData, path: Path) -> None:
    """Draws what a data set holds into a `.png`, `.pdf` or `.svg` file."""
    figure = data_figure(data)
    with style():
        figure.savefig(path, dpi=120)


def _draw_counts(axes: "Axes", found: dict[str, SplitStatistics]) -> None:
    height = 0.8 / len(found)
    for i, (side, s) in enumerate(found.items()):
        counts = [
            s.images,
            s.images_per_identity.size,
            s.cameras.size,
            s.tracklet_lengths.size,
        ]
        rows = np.arange(len(_COUNTS)) + (i - (len(found) - 1) / 2) * height
        axes.barh(rows, counts, height, color=_COLOURS[side], label=side)
        for row, count in zip(rows, counts, strict=True):
            axes.annotate(
                f"{count:,}",
                (max(count, 1), row),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_xscale("log")
    # Space for the numbers at the bars' ends.
    axes.set_xlim(0.8, 20 * max(s.images for s in found.values()))
    axes.set_yticks(range(len(_COUNTS)), _COUNTS)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Counts")
    axes.legend(loc="lower right", fontsize=8.5)


def _draw_histogram(
    axes: "Axes", values: dict[str, np.ndarray], title: str, what: str
) -> None:
    values = {side: v for side, v in values.items() if v.size}
    axes.set_title(title)
    if not values:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"no {what} are known", ha="center")
        return
    most = max(int(v.max()) for v in values.values())
    step = -(-most // _BINS)
    edges = np.arange(0.5, most + step + 0.5, step).tolist()
    for side, v in values.items():
        axes.hist(
            v,
            edges,
            histtype="stepfilled",
            color=_COLOURS[side],
            edgecolor=_COLOURS[side],
            alpha=0.45,
            label=f"{side}: {v.min()} to {v.max()}, median {np.median(v):g}",
        )
    axes.set(xlabel="images", ylabel=what)
    axes.locator_params(integer=True)
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # space for the legend
    axes.legend(fontsize=8.5)


def _draw_cameras(
    axes: "Axes", side: str, found: SplitStatistics, names: tuple[str, ...]
) -> None:
    words = [names[c] if names else str(c) for c in found.cameras]
    # A camera's own identities, on the diagonal, would outshine what pairs share.
    off = found.shared_identities[~np.eye(len(words), dtype=bool)]
    image = axes.imshow(
        found.shared_identities, cmap="viridis", vmin=0, vmax=max(1, int(off.max()))
    )
    camera_ticks(axes, words, words)
    axes.set(xlabel="camera", ylabel="camera")
    axes.set_title(f"{side}: identities shared")
    axes.grid(visible=False)
    write_cells(axes, found.shared_identities.astype(np.float64), whole=True)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75)
    bar.ax.locator_params(axis="y", integer=True)
