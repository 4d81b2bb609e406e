"""Somebody's ranked lists: tracklets pulled in, scored against labels alone."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from dex_jax.data import Protocol
from dex_jax.evaluation._labels import Labelled
from dex_jax.evaluation._paper import TABLES
from dex_jax.evaluation._results import KEPT, score
from dex_jax.evaluation._submission import read_ranking, write_submission
from dex_jax.rerank import Ranking, parse, top_k, tracklet_pull_in


def score_file(
    path: str | os.PathLike,
    labels: Labelled,
    protocol: Protocol,
    *,
    order: str | None = None,
    submission: str | os.PathLike | None = None,
    replace: bool = False,
) -> Iterator[str]:
    """Scores the lists of a file and, with tracklets pulled in, the changed ones.

    Args:
        path: a submission, or distances `.npy`; see `read_ranking`.
        labels: of the queries and the gallery that the file ranks.
        protocol: how it is scored; of random galleries, only the one it ranks.
        order: of a pulled-in tracklet's images, as `pull_in_order` reads it.
        submission: where the pulled-in lists go, if anywhere; needs `order`.
        replace: whether a submission that is there may be replaced.

    Yields:
        Lines to print.

    Raises:
        ValueError: no tracklets to pull in, and what `read_ranking` refuses.
    """
    protocol = dataclasses.replace(protocol, draws=1)
    yield protocol.describe()
    size = len(labels.gallery_names)
    ranked = read_ranking(path, queries=len(labels.query_names), gallery=size)
    lists = {str(path): ranked}
    if order is not None:
        tracklets = labels.gallery_tracklets
        if tracklets is None or (tracklets == -1).all():
            raise ValueError("--rerank: the gallery has no tracklets to pull in")
        pulled = pull_in(ranked, tracklets, order=order)
        lists[f"{path}, tracklets pulled in"] = pulled
        if submission is not None:
            ids = np.asarray(top_k(pulled, k=min(KEPT, size)).ids)
            write_submission(submission, ids, gallery=size, replace=replace)
            yield f"wrote {submission}: {len(ids)} lines"
    for name, found in lists.items():
        if labels.query_identities is None:
            yield f"{name}: no identities, so nothing is scored"
        else:
            yield f"{name}: {score(found, labels, protocol).line()}"


def pull_in_order(rerank: str | None) -> str | None:
    """The order in which `--rerank` pulls tracklets into a given list; None for none.

    Raises:
        ValueError: a chain of other steps, which need embeddings.

    Example:
        >>> pull_in_order("tracklet(order=score)"), pull_in_order("none")
        ('score', None)
    """
    if rerank is None:
        return None
    found = [] if rerank in TABLES else parse(rerank).steps
    if rerank in TABLES or any(step.name != "tracklet" for step in found):
        raise ValueError(
            f"--rerank: a given list is re-ranked by tracklet alone, got {rerank!r}; "
            "other steps need embeddings"
        )
    return str(dict(found[-1].options).get("order", "gallery")) if found else None


def pull_in(
    ranked: Ranking | np.ndarray, tracklet_ids: np.ndarray, *, order: str = "gallery"
) -> np.ndarray:
    """Pulls whole tracklets into somebody's list; see `rerank.tracklet_pull_in`.

    Args:
        ranked: a `Ranking` `[Q, K]`, or scores `[Q, G]` of any type, larger is better.
        tracklet_ids: int `[G]`, -1 for none.
        order: of the images of a tracklet, "gallery" or "score". Images that a list
            does not hold are pulled in behind those that it holds.

    Returns:
        Scores `[Q, G]` float32, -inf where nothing is known of an image.

    Example:
        >>> ranking = Ranking(np.array([[2, 0]]), np.array([[0.9, 0.1]]))
        >>> pull_in(ranking, np.array([7, 5, 7, 5]))
        array([[  0., -inf,   0., -inf]], dtype=float32)
    """
    if isinstance(ranked, Ranking):
        ids = np.asarray(ranked.ids)
    else:
        # Ranks in place of scores: float32 could not tell apart what float64 does. For
        # integers the inverse of all bits orders as the negative would.
        falling = -ranked if ranked.dtype.kind == "f" else ~ranked
        ids = np.argsort(falling, axis=1, kind="stable")
    places = np.full((len(ids), len(tracklet_ids)), -np.inf, np.float32)
    ranks = np.broadcast_to(-np.arange(ids.shape[1], dtype=np.float32), ids.shape)
    np.put_along_axis(places, ids, ranks, axis=1)
    return np.asarray(tracklet_pull_in(places, tracklet_ids, order=order))
