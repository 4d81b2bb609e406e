"""One chain on one set of embeddings: ranks, figures and how sure they are."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dex_jax import metrics
from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._cameras import CameraMatrix, camera_matrix
from dex_jax.evaluation._draws import further_draws
from dex_jax.evaluation._labels import (
    Labelled,
    check_scorable,
    pair_scores,
    protocol_labels,
)
from dex_jax.evaluation._paper import Row
from dex_jax.evaluation._statistics import (
    LEAST_TESTED,
    Comparison,
    Interval,
    holm,
    mean_interval,
    paired_comparison,
)
from dex_jax.evaluation._units import by_tracklet
from dex_jax.evaluation._verification import Verification, verify
from dex_jax.rerank import Embeddings, NeighborCache, Pipeline, Ranking, top_k

# Ranks that are kept of every list: what a submission holds.
KEPT = 100
# Above so many scores (1 GiB of float32) only the first ranks are computed.
_DENSE_LIMIT = 2**28
_LONG_LIST = 1000


class Scored(NamedTuple):
    """The figures of a ranking; `[Q]` values are NaN for queries that do not count.

    Over several random galleries the figures are means; `[Q]` values are of the first.
    """

    mean_ap: float
    cmc: np.ndarray  # [50]
    mean_inp: float
    average_precision: np.ndarray  # [Q]
    valid: np.ndarray  # [Q]
    map_at_100: dict[str, float]  # by denominator
    identities: np.ndarray  # [Q]

    def line(self) -> str:
        """Returns the figures in one line of text."""
        return (
            f"mAP {100 * self.mean_ap:.2f}, CMC@1 {100 * self.cmc[0]:.2f}, "
            f"CMC@5 {100 * self.cmc[4]:.2f}, CMC@10 {100 * self.cmc[9]:.2f}; mAP@100 "
            f"{100 * self.map_at_100['positives']:.2f} over all positives, "
            f"{100 * self.map_at_100['min']:.2f} over min(positives, 100)"
        )


@dataclass(frozen=True, eq=False)
class Result:
    """What one row of a table found.

    Attributes:
        row: the experiment.
        scored: its figures under the protocol; None where no labels are given.
        interval: the 95 % bootstrap interval of mAP, not `known` for one identity
            alone; None without labels.
        ids: int32 `[Q, K]`, the first K <= 100 gallery rows of every query.
        scores: float32 `[Q, K]`.
        seconds: time of the chain, compilation included.
        verification: thresholds; None without labels, dense scores or two vehicles.
        cameras: mAP by pair of cameras; None without cameras or dense scores.
        note: what a reader of the figures must know, empty if nothing.
        draws: the figures of each random gallery, where the protocol repeats them;
            `ids`, `scores`, `verification` and `cameras` are of the first.
    """

    row: Row
    scored: Scored | None
    interval: Interval | None
    ids: np.ndarray
    scores: np.ndarray
    seconds: float
    verification: Verification | None = None
    cameras: CameraMatrix | None = None
    note: str = ""
    draws: tuple[Scored, ...] = ()

    def spread(self) -> tuple[float, np.ndarray] | None:
        """Returns the standard deviation of mAP and CMC over the random galleries."""
        if len(self.draws) < 2:
            return None
        return (
            float(np.std([draw.mean_ap for draw in self.draws], ddof=1)),
            np.std([draw.cmc for draw in self.draws], axis=0, ddof=1),
        )

    def line(self) -> str:
        """Returns its figures and its time in one line of text."""
        if self.scored is None:
            return f"{self.row.label}: {self.seconds:.1f} s"
        spread = self.spread()
        over = "" if spread is None else f" (std {100 * spread[0]:.1f})"
        return (
            f"{self.row.label}: mAP {100 * self.scored.mean_ap:.1f}{over}, CMC@1 "
            f"{100 * self.scored.cmc[0]:.1f}, CMC@5 {100 * self.scored.cmc[4]:.1f} "
            f"({self.seconds:.1f} s)"
        )

    def paired(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the average precision of every valid query and its identity.

        Those of all random galleries, one after the other: `[M]` each.
        """
        every = self.draws or (() if self.scored is None else (self.scored,))
        return (
            np.concatenate([s.average_precision[s.valid] for s in every]),
            np.concatenate([s.identities[s.valid] for s in every]),
        )


def run_row(
    file: EmbeddingFile,
    row: Row,
    protocol: Protocol,
    *,
    cache: NeighborCache | None = None,
) -> Result:
    """Re-ranks the gallery for every query and scores the lists (section 4.2).

    Args:
        file: Q queries and G gallery images.
        row: which chain.
        protocol: how it is scored.
        cache: neighbour graphs shared with the other rows; see `shared_cache`.

    Returns:
        A `Result`; without identities in the file, ranks alone.

    Raises:
        ValueError: an identity rule the file has no labels for.
    """
    start = time.perf_counter()
    ranked, best = rank_all(file, row.pipeline, cache=cache)
    seconds = time.perf_counter() - start
    ids, scores = np.asarray(best.ids), np.asarray(best.scores)
    if protocol.gallery_unit == "tracklet":
        units = by_tracklet(ranked, file)
        best = top_k(units.scores, k=min(KEPT, units.scores.shape[1]))
        ids = np.take_along_axis(units.images, np.asarray(best.ids), axis=1)
        scores = np.asarray(best.scores)
    note = (
        f"positives beyond rank {_LONG_LIST} count as not found"
        if isinstance(ranked, Ranking)
        else ""
    )
    if file.query_identities is None:
        return Result(row, None, None, ids, scores, seconds)
    scored = score(ranked, file, protocol)
    verification = cameras = None
    if isinstance(ranked, np.ndarray):
        genuine, impostor = pair_scores(ranked, file, protocol)
        if genuine.size and impostor.size:
            verification = verify(genuine, impostor)
        cameras = camera_matrix(ranked, file, protocol)
    result = Result(
        row, scored, None, ids, scores, seconds, verification, cameras, note
    )
    if protocol.draws > 1:
        draws = (scored, *_score_further(file, row.pipeline, protocol))
        result = replace(result, scored=mean_figures(draws), draws=draws)
    return replace(result, interval=mean_interval(*result.paired()))


def score_chain(
    file: EmbeddingFile,
    pipeline: Pipeline,
    protocol: Protocol,
    *,
    cache: NeighborCache | None = None,
) -> Scored:
    """Scores a chain, over all random galleries where the protocol repeats them."""
    first = score(rank_all(file, pipeline, cache=cache)[0], file, protocol)
    return mean_figures((first, *_score_further(file, pipeline, protocol)))


def _score_further(
    file: EmbeddingFile, pipeline: Pipeline, protocol: Protocol
) -> Iterator[Scored]:
    for other in further_draws(file, protocol):
        yield score(rank_all(other, pipeline)[0], other, protocol)


def mean_figures(draws: Sequence[Scored]) -> Scored:
    """Averages the figures of several galleries; per-query ones are of the first."""
    return draws[0]._replace(
        mean_ap=float(np.mean([s.mean_ap for s in draws])),
        cmc=np.mean([s.cmc for s in draws], axis=0),
        mean_inp=float(np.mean([s.mean_inp for s in draws])),
        map_at_100={
            name: float(np.mean([s.map_at_100[name] for s in draws]))
            for name in draws[0].map_at_100
        },
    )


def shared_cache(file: EmbeddingFile, rows: Sequence[Row]) -> NeighborCache:
    """Returns graphs wide enough for all rows, for `run_row` of each."""
    size = len(file.gallery_names)
    return NeighborCache(least=max(row.pipeline.width(size) for row in rows))


def rank_all(
    file: EmbeddingFile, pipeline: Pipeline, *, cache: NeighborCache | None = None
) -> tuple[np.ndarray | Ranking, Ranking]:
    """Runs a chain on a file.

    Args:
        file: Q queries and G gallery images; where it has no tracklets, each stands
            alone.
        pipeline: the chain.
        cache: neighbour graphs shared with other chains.

    Returns:
        Scores `[Q, G]` on the host, or the first 1000 ranks where those would not fit;
        and the first 100 ranks.
    """
    num_gallery = len(file.gallery_names)
    tracklets = file.gallery_tracklets
    embeddings = Embeddings(
        jnp.asarray(file.query_features),
        jnp.asarray(file.gallery_features),
        np.full(num_gallery, -1) if tracklets is None else tracklets,
    )
    kept = min(KEPT, num_gallery)
    if len(file.query_names) * num_gallery <= _DENSE_LIMIT:
        scores = pipeline(embeddings, cache=cache)
        return np.asarray(scores), top_k(scores, k=kept)
    ranking = pipeline(embeddings, top=min(_LONG_LIST, num_gallery), cache=cache)
    return ranking, Ranking(ranking.ids[:, :kept], ranking.scores[:, :kept])


def tracklet_notes(file: EmbeddingFile, rows: Sequence[Row]) -> list[str]:
    """Says what steps that read tracklets do where there are none."""
    tracklets = file.gallery_tracklets
    using = any(step.needs_tracklets for row in rows for step in row.pipeline.steps)
    if not using or (tracklets is not None and np.any(tracklets != -1)):
        return []
    return [
        "the gallery has no tracklets: each image stands alone, DEx is alpha-QE and "
        "the tracklet step changes nothing"
    ]


def interval_notes(results: Sequence[Result]) -> list[str]:
    """Says what few identities mean for intervals and tests."""
    if results[0].scored is None:
        return []
    count = len(np.unique(results[0].paired()[1]))
    if count == 1:
        return [
            "all scored queries are of one identity: there is no interval, and no test "
            "tells chains apart"
        ]
    if count < LEAST_TESTED:
        return [
            f"the scored queries are of {count} identities: intervals are rough, and "
            "no test can end below p = .05"
        ]
    return []


def score(ranked: np.ndarray | Ranking, file: Labelled, protocol: Protocol) -> Scored:
    """Scores lists under a protocol, and mAP over the first 100 beside it.

    Args:
        ranked: scores `[Q, G]` or a `Ranking`.
        file: the labels.
        protocol: what is removed, where lists are cut, what AP is divided by.

    Raises:
        ValueError: no identities, cameras that the protocol needs are missing, or no
            query has a positive.
    """
    check_scorable(file, protocol)
    labels = protocol_labels(file, protocol)
    if protocol.gallery_unit == "tracklet":
        units = by_tracklet(ranked, file)
        ranked = units.scores
        for name in labels.keys() & {"gallery_identities", "gallery_cameras"}:
            labels[name] = labels[name][units.member]
    found = metrics.evaluate(
        ranked, **labels, top=protocol.top, ap_denominator=protocol.ap_denominator
    )
    over_100 = {
        denominator: float(
            found.mean_ap
            if (protocol.top, protocol.ap_denominator) == (100, denominator)
            else metrics.evaluate(
                ranked, **labels, top=100, ap_denominator=denominator
            ).mean_ap
        )
        for denominator in ("positives", "min")
    }
    return Scored(
        float(found.mean_ap),
        np.asarray(found.cmc),
        float(found.mean_inp),
        np.asarray(found.average_precision),
        np.asarray(found.valid),
        over_100,
        np.asarray(labels["query_identities"]),
    )


def compare(results: Sequence[Result]) -> list[Comparison | None]:
    """Tests every result against the first; p values adjusted for their number.

    Args:
        results: the rows of a table, baseline first.

    Returns:
        One entry a result; None for the first and for results without figures.
    """
    if results[0].scored is None:
        return [None] * len(results)
    baseline, clusters = results[0].paired()
    tests = [
        paired_comparison(result.paired()[0], baseline, clusters)
        for result in results[1:]
    ]
    adjusted = holm([test.p_value for test in tests])
    return [
        None,
        *(t._replace(p_value=p) for t, p in zip(tests, adjusted, strict=True)),
    ]
