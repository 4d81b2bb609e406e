"""Pictures of ranked lists: the headline, and why an image stands where it does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dex_jax.data import Images, Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Result, camera_tag, counted_pairs
from dex_jax.report._figures import figure_text, new_figure, style
from dex_jax.report._shown import (
    JUNK,
    RIGHT,
    UNKNOWN,
    WRONG,
    Shown,
    picture_of,
    shown_lists,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TONES = {RIGHT: "#1f9d55", WRONG: "#d64545", JUNK: "#a0a7b0"}
QUERY_TONE = "#0f6fde"
# Steps whose effect `explain` breaks down, with the paper's options.
_RECIPROCAL_K = 20
_EXPANSION_K, _EXPANSION_ALPHA = 20, 2.0
_LONGEST_TAG = 20  # letters below a picture


def headline_queries(before: Result, after: Result, *, count: int = 4) -> list[int]:
    """Picks queries spread over all gains, from the largest to the median.

    Returns:
        `count` rows, or fewer where fewer are scored.
    """
    if before.scored is None or after.scored is None:
        return list(range(min(count, len(before.ids))))
    gain = after.scored.average_precision - before.scored.average_precision
    order = np.argsort(-gain, kind="stable")  # NaN last
    scored = order[: int(after.scored.valid.sum())]
    places = np.linspace(0, (len(scored) - 1) / 2, min(count, len(scored)))
    return scored[places.astype(int)].tolist()


def ranks_figure(
    file: EmbeddingFile,
    protocol: Protocol,
    pair: tuple[Result, Result],
    images: Mapping[str, Images],
    queries: Sequence[int],
) -> "Figure":
    """Draws queries with their first ten images before and after re-ranking.

    Args:
        file: the labels.
        protocol: which images count.
        pair: the result before and after.
        images: both sides.
        queries: rows to draw.
    """
    lists = [shown_lists(result, file, protocol) for result in pair]
    with style():
        # Space above each row for its heading, which the layout does not count.
        figure = new_figure(11, 2.6 * len(queries), row_gap=0.1)
        grid = figure.add_gridspec(
            2 * len(queries), 12, width_ratios=[1.9, 0.1, *[1] * 10]
        )
        for row, query in enumerate(queries):
            axes = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
            _picture(axes, picture_of(images, "query", query), QUERY_TONE)
            _head(axes, f"query {_tags(file, 'query', query)}")
            for line, (result, chain) in enumerate(zip(pair, lists, strict=True)):
                _draw_list(
                    [
                        figure.add_subplot(grid[2 * row + line, 2 + i])
                        for i in range(10)
                    ],
                    chain[query],
                    _heading(result, query),
                    file,
                    images,
                )
    return figure


def _draw_list(
    places: Sequence["Axes"],
    shown: Shown,
    heading: str,
    file: EmbeddingFile,
    images: Mapping[str, Images],
) -> None:
    """Draws the images that count; those of the query's camera would hide them."""
    kept = [i for i, kind in enumerate(shown.kinds) if kind != JUNK]
    _head(places[0], heading)
    for axes, i in zip(places, kept, strict=False):
        pixels = picture_of(images, "gallery", shown.ids[i])
        _picture(axes, pixels, TONES.get(shown.kinds[i], "#cccccc"))
        axes.set_xlabel(_tags(file, "gallery", shown.ids[i]), fontsize=6.5)
    for axes in places[len(kept) :]:
        axes.set_axis_off()


class Explanation(NamedTuple):
    """Why images stand where they do for one query.

    Attributes:
        query: its row.
        ids: the gallery images looked at: the first of both lists, each once.
        before: their ranks by cosine similarity, from 1.
        after: their ranks after re-ranking, 0 beyond the first 100.
        cosine: their similarity to the query.
        reciprocal: whether the query is among their own 20 nearest, and they among
            its (the set R of Zhong et al. for k = 20).
        tracklets: the tracklets DEx expands with, by falling share.
        shares: the share of each in the expansion's weight; they sum to 1.
    """

    query: int
    ids: list[int]
    before: list[int]
    after: list[int]
    cosine: list[float]
    reciprocal: list[bool]
    tracklets: list[int]
    shares: list[float]


def explain(
    file: EmbeddingFile, after: Result, query: int, *, length: int = 10
) -> Explanation:
    """Breaks a query's ranking down into neighbours, reciprocity and tracklets.

    Args:
        file: the embeddings.
        after: the re-ranked lists.
        query: which row.
        length: images of either list.

    Returns:
        An `Explanation`.
    """
    gallery, queries = _unit(file.gallery_features), _unit(file.query_features)
    cosine = gallery @ queries[query]  # [G]
    order = np.argsort(-cosine, kind="stable")
    before = np.empty(len(order), np.int64)
    before[order] = np.arange(1, len(order) + 1)
    reranked = after.ids[query]
    ids = list(dict.fromkeys([*order[:length].tolist(), *reranked[:length].tolist()]))
    places = {int(image): rank for rank, image in enumerate(reranked, start=1)}
    nearer = np.concatenate([queries @ gallery[ids].T, gallery @ gallery[ids].T])
    # Rows ahead of the query on each image's own list; the image itself is not one.
    ahead = (nearer > cosine[ids]).sum(axis=0) - 1
    reciprocal = (ahead < _RECIPROCAL_K) & (before[ids] <= _RECIPROCAL_K)
    tracklets, shares = _expansion_shares(file, gallery, queries[query])
    return Explanation(
        query,
        ids,
        before[ids].tolist(),
        [places.get(image, 0) for image in ids],
        [round(float(c), 4) for c in cosine[ids]],
        reciprocal.tolist(),
        tracklets,
        shares,
    )


def explain_figure(
    file: EmbeddingFile,
    protocol: Protocol,
    after: Result,
    found: Explanation,
    images: Mapping[str, Images] | None,
) -> "Figure":
    """Draws an `Explanation`: the images with their moves, the tracklets' shares."""
    kinds = dict(zip(found.ids, _kinds(file, protocol, found), strict=True))
    ranks = np.array([found.before, found.after])  # [2, K]
    with style():
        figure = new_figure(13, 5.6)
        grid = figure.add_gridspec(
            3, 12, width_ratios=[1.9, 0.1, *[1] * 10], height_ratios=[1, 1, 0.62]
        )
        axes = figure.add_subplot(grid[0:2, 0])
        _picture(axes, picture_of(images, "query", found.query), QUERY_TONE)
        _head(axes, f"query {_tags(file, 'query', found.query)}")
        axes.set_xlabel(figure_text(file.query_names[found.query]), fontsize=7)
        for line in range(2):
            first = np.where(ranks[line] == 0, np.inf, ranks[line]).argsort()[:10]
            for column, place in enumerate(first):
                axes = figure.add_subplot(grid[line, 2 + column])
                image = found.ids[place]
                _picture(
                    axes,
                    picture_of(images, "gallery", image),
                    TONES.get(kinds[image], "#cccccc"),
                )
                start, end = ranks[:, place]
                _head(axes, f"{start} \u2192 {end or '>100'}")
                mutual = "mutual" if found.reciprocal[place] else "one-sided"
                axes.set_xlabel(
                    f"cos {found.cosine[place]:.2f}, {mutual}\n"
                    f"{_tags(file, 'gallery', image)}",
                    fontsize=6.5,
                )
        _draw_shares(figure.add_subplot(grid[2, :]), file, found)
        figure.suptitle(
            "Above: nearest by cosine. Below: first after "
            f"{figure_text(after.row.label)}. "
            f"Rank before \u2192 after; mutual: each among the other's "
            f"{_RECIPROCAL_K} nearest",
            fontsize=10,
        )
    return figure


def _draw_shares(axes: "Axes", file: EmbeddingFile, found: Explanation) -> None:
    tracklet_ids = file.gallery_tracklet_ids()
    tones = []
    for tracklet in found.tracklets:
        tone = "#868e96"
        if file.query_identities is not None and file.gallery_identities is not None:
            shown = file.gallery_identities[tracklet_ids == tracklet][0]
            right = shown == file.query_identities[found.query]
            tone = TONES[RIGHT] if right else TONES[WRONG]
        tones.append(tone)
    places = range(len(found.tracklets))
    axes.bar(places, [100 * share for share in found.shares], color=tones)
    axes.set_xticks(places, [f"t{tracklet}" for tracklet in found.tracklets])
    axes.set_ylabel("share, %")
    axes.set_xlim(-0.6, max(len(found.tracklets), 10) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_title(
        f"Tracklets that DEx adds to the query (k {_EXPANSION_K}, "
        f"alpha {_EXPANSION_ALPHA:g}; green: the vehicle itself)",
        fontsize=9,
    )


def _expansion_shares(
    file: EmbeddingFile, gallery: np.ndarray, query: np.ndarray
) -> tuple[list[int], list[float]]:
    labels, of = np.unique(file.gallery_tracklet_ids(), return_inverse=True)
    means = np.zeros((len(labels), gallery.shape[1]), np.float64)
    np.add.at(means, of, gallery)
    ranked = np.argsort(-(_unit(means) @ query), kind="stable")  # [T]
    place = np.empty_like(ranked)
    place[ranked] = np.arange(len(ranked))
    # Images in place of their tracklet, by gallery index within it (section 3.2).
    first = np.lexsort((np.arange(len(of)), place[of]))[:_EXPANSION_K]
    weight = np.maximum(gallery[first] @ query, 0) ** _EXPANSION_ALPHA
    total = weight.sum()
    used = list(dict.fromkeys(of[first].tolist()))
    shares = [
        float(weight[of[first] == t].sum() / total) if total else 0.0 for t in used
    ]
    order = np.argsort([-share for share in shares], kind="stable")
    return [int(labels[used[i]]) for i in order], [shares[i] for i in order]


def _kinds(file: EmbeddingFile, protocol: Protocol, found: Explanation) -> str:
    if file.query_identities is None:
        return UNKNOWN * len(found.ids)
    rows = np.array([found.query])
    counted, positive = counted_pairs(file, protocol, rows)
    return "".join(
        RIGHT if positive[0, i] else WRONG if counted[0, i] else JUNK for i in found.ids
    )


def _heading(result: Result, query: int) -> str:
    label = figure_text(result.row.label)
    if result.scored is None or not result.scored.valid[query]:
        return label
    return f"{label}: AP {100 * result.scored.average_precision[query]:.0f}"


def _tags(file: EmbeddingFile, side: str, row: int) -> str:
    parts = []
    cameras, tracklets = (
        getattr(file, f"{side}_{label}") for label in ("cameras", "tracklets")
    )
    if cameras is not None and cameras[row] != -1:
        tag = camera_tag(file, int(cameras[row]))
        parts.append(figure_text(tag, longest=_LONGEST_TAG))
    if tracklets is not None and tracklets[row] != -1:
        parts.append(f"t{tracklets[row]}")
    return " \u00b7 ".join(parts)


def _head(axes: "Axes", text: str) -> None:
    """A heading that may be wider than its picture and moves nothing."""
    label = axes.text(
        0, 1.07, text, fontsize=9, weight="bold", transform=axes.transAxes
    )
    label.set_in_layout(False)


def _picture(axes: "Axes", pixels: np.ndarray | None, tone: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    if pixels is None:
        axes.set_box_aspect(1)
    else:
        axes.imshow(pixels, interpolation="lanczos")
    for spine in axes.spines.values():
        spine.set(visible=True, color=tone, linewidth=3)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)
