"""Retrieval metrics: AP, mAP, CMC, mAP over the first K, mINP."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import (
    ArrayLike,
    check_choice,
    check_count,
    check_paired_ids,
    host_value,
    is_concrete,
    on_any_mesh,
    ranked_scores,
    read_array,
    replicated,
    warn_of_distances,
)
from dex_jax.rerank._embeddings import Ranking, best

# Queries a block: [8, G] scores stay in the cache for every positive counted.
_QUERIES = 8
# Positives counted in one reading of the block.
_POSITIVES = 4
# Row pieces added up before the final sum: a plain sum along a row is not vectorised.
_PIECES = 16
_ABSENT = np.iinfo(np.int32).max


class Evaluation(NamedTuple):
    """What a ranking is worth; means run over the valid queries alone.

    Attributes:
        mean_ap: scalar float32, mean average precision.
        cmc: `[max_rank]` float32, share of queries with a hit among the first r + 1.
        mean_inp: scalar float32, mean inverse negative penalty: the number of
            positives over the rank of the last one, 0 where the list misses one.
        average_precision: `[Q]` float32, NaN for invalid queries.
        valid: `[Q]` bool, whether the gallery holds a positive for the query.
    """

    mean_ap: jax.Array
    cmc: jax.Array
    mean_inp: jax.Array
    average_precision: jax.Array
    valid: jax.Array


class _Labels(NamedTuple):
    query: jax.Array  # [Q] identities
    gallery: jax.Array  # [G]
    query_camera: jax.Array  # [Q], -1 everywhere when cameras play no part
    gallery_camera: jax.Array  # [G]


@on_any_mesh
def evaluate(
    scores: ArrayLike | Ranking,
    *,
    query_identities: ArrayLike,
    gallery_identities: ArrayLike,
    query_cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    top: int | None = None,
    ap_denominator: str = "positives",
    ap_method: str = "precision",
    max_rank: int = 50,
) -> Evaluation:
    """Scores a ranking: mAP, CMC and mINP, with the images that do not count removed.

    The metrics of section 4.2. A positive of a query is a gallery image of its
    identity. Average precision is the mean, over the positives, of (hits so far) /
    (rank). Nothing is sorted: the rank of a positive is the number of images ahead of
    it, counted block by block, in O(Q G P) compares for P positives a query and
    O(G) memory.

    Removed before ranks are counted: gallery identity -1 (junk, unlabelled) and, when
    cameras are given, gallery images of the query's identity AND camera (the
    Market-1501 and VeRi protocol; AI City removes nothing). A camera of -1 is unknown
    and equals no camera. A query of identity -1, and one without a positive left, is
    invalid: its AP is NaN and the means leave it out.

    Scores are ranked in the type that they have: rows of float64 or of integers that
    float32 would round to equal numbers are replaced by their ranks. For what jax
    traces, or holds as float32, numbers below 1.2e-38 in size are zero.

    Works inside `jax.jit`. Identities should be concrete there: traced ones leave the
    number of positives unknown, and space for G of them is taken. Text cannot be
    traced.

    Warns where a distance seems to have been passed as a score: of 20 valid queries or
    more, 90 % have positives that score lower than three quarters of the other images,
    and for 25 % a positive scores lowest of all (only when concrete, and not for a
    `Ranking`).

    Args:
        scores: `[Q, G]` real numbers, larger is better, ties to the lower gallery
            index; infinities are numbers too. Or a `Ranking` of the best K: all
            positives of the gallery count in the denominator there too; those beyond
            its K are not found.
        query_identities: `[Q]` integers of any type, or text (bytes are read as UTF-8);
            the text "-1" and the empty one mean -1. Only equality counts.
        gallery_identities: `[G]`, of the same kind.
        query_cameras: `[Q]` integers or text, in the same way; both camera arguments or
            none.
        gallery_cameras: `[G]`, of the same kind.
        top: ranks that count, after removal; None for all. Positives further down are
            not found, by AP, CMC and mINP alike.
        ap_denominator: `"positives"` divides by the number of positives, `"min"` by
            the smaller of that and `top` (K for a `Ranking` if `top` is None).
        ap_method: `"precision"`, or `"trapezoid"` for the area under the
            precision-recall curve by the trapezoid rule (Oxford buildings).
        max_rank: length of the CMC curve.

    Returns:
        An `Evaluation`.

    Raises:
        ValueError: shapes that do not fit, scores that are NaN or no real numbers
            (complex ones and booleans are none), labels that are neither integers nor
            text or text on one side alone, ranked ids that repeat or lie outside the
            gallery, one camera argument alone, no valid query at all, or an option out
            of range (values are checked only when concrete).

    Example:
        >>> import numpy as np
        >>> found = evaluate(
        ...     np.array([[0.9, 0.8, 0.7]]),
        ...     query_identities=np.array([5]),
        ...     gallery_identities=np.array([5, 6, 5]),
        ... )
        >>> round(float(found.mean_ap), 4)  # (1/1 + 2/3) / 2
        0.8333
    """
    check_choice(ap_denominator, "ap_denominator", ("positives", "min"))
    check_choice(ap_method, "ap_method", ("precision", "trapezoid"))
    max_rank = check_count(max_rank, "max_rank")
    top = None if top is None else check_count(top, "top")
    if isinstance(scores, Ranking):
        ranked, num_gallery = _read_ranking(scores), None
    else:
        ranked = ranked_scores(scores, "scores")
        num_gallery = ranked.shape[1]
    # Inside a caller's jit, labels that are known there stay known.
    with jax.ensure_compile_time_eval():
        labels = _check_labels(
            (query_identities, gallery_identities),
            (query_cameras, gallery_cameras),
            (ranked.shape[0], num_gallery),
        )
    if isinstance(scores, Ranking):
        _check_ranking(ranked, labels.gallery.shape[0])
        ranks, positives = _list_ranks(jnp.asarray(ranked, jnp.int32), labels)
        top = ranked.shape[1] if top is None else top
    else:
        ranked = jnp.asarray(ranked)
        width = _most_positives(labels)
        ranks, positives, kept = _dense_ranks(ranked, labels, width=width)
        if is_concrete(ranks):
            flat = jnp.max(ranked, axis=1) == jnp.min(ranked, axis=1)
            warn_of_distances(*map(host_value, (ranks, positives, kept, flat)))
    result = replicated(
        _evaluation(
            ranks,
            positives,
            top=top,
            ap_denominator=ap_denominator,
            ap_method=ap_method,
            max_rank=max_rank,
        )
    )
    if is_concrete(result.valid) and not host_value(result.valid).any():
        raise ValueError(
            "query_identities: no query has a positive left in the gallery; "
            f"{labels.query.shape[0]} queries, {labels.gallery.shape[0]} gallery images"
        )
    return result


def _read_ranking(ranking: Ranking) -> jax.Array | np.ndarray:
    ids = read_array(ranking.ids, "scores.ids")
    if ids.ndim != 2 or 0 in ids.shape or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"scores.ids: expected integers [Q, K], got {ids.dtype} {ids.shape}"
        )
    return ids


def _check_ranking(ids: jax.Array | np.ndarray, gallery: int) -> None:
    """Refuses ids `[Q, K]` that repeat in a row or lie outside the gallery."""
    if not is_concrete(ids):
        return
    rows = np.sort(host_value(ids), axis=1)
    if rows[:, 0].min() < 0 or rows[:, -1].max() >= gallery:
        raise ValueError(
            f"scores.ids: expected gallery indices from 0 to {gallery - 1}, "
            f"got {rows[:, 0].min()} to {rows[:, -1].max()}"
        )
    twice = np.flatnonzero((rows[:, 1:] == rows[:, :-1]).any(axis=1))
    if twice.size:
        raise ValueError(f"scores.ids: row {twice[0]} lists an image twice")


def _check_labels(
    identities: tuple[object, object],
    cameras: tuple[object, object],
    sizes: tuple[int, int | None],
) -> _Labels:
    names = ("query_identities", "gallery_identities")
    query, gallery = check_paired_ids(*identities, names, sizes)
    sizes = query.shape[0], gallery.shape[0]
    given = [camera is not None for camera in cameras]
    if any(given) != all(given):
        missing = "gallery_cameras" if given[0] else "query_cameras"
        raise ValueError(
            f"{missing}: is None; give both query_cameras and gallery_cameras to "
            "remove same-camera images, or neither"
        )
    if all(given):
        names = ("query_cameras", "gallery_cameras")
        return _Labels(query, gallery, *check_paired_ids(*cameras, names, sizes))
    return _Labels(query, gallery, jnp.full_like(query, -1), jnp.full_like(gallery, -1))


def _most_positives(labels: _Labels) -> int:
    """The largest number of positives of a query, rounded up; G when traced."""
    size = labels.gallery.shape[0]
    if not is_concrete(*labels):
        return size
    query, gallery = host_value(labels.query), host_value(labels.gallery)
    values, counts = np.unique(gallery[gallery != -1], return_counts=True)
    found = counts[np.isin(values, query)]
    most = int(found.max()) if found.size else 1
    return min(size, -(-most // _POSITIVES) * _POSITIVES)


def _relevance(
    labels: _Labels, query: jax.Array, camera: jax.Array, images: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Which images are kept and which are positives, `[b, G]` or, for ids, `[b, K]`."""
    identity, seen_by = labels.gallery[None], labels.gallery_camera[None]
    if images is not None:
        identity, seen_by = identity[0, images], seen_by[0, images]
    same = (identity == query[:, None]) & (query[:, None] != -1)
    same_view = same & (seen_by == camera[:, None]) & (camera[:, None] != -1)
    kept = (identity != -1) & ~same_view
    return kept, same & kept


@functools.partial(jax.jit, static_argnames=("width",))
def _dense_ranks(
    scores: jax.Array, labels: _Labels, *, width: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ranks `[Q, width]` of each query's positives, rising, and two counts `[Q]`.

    The counts are of its positives, and of all images that are not removed.
    """
    Q, G = scores.shape
    block = min(_QUERIES, Q)

    def one_block(
        i: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # The last block begins early rather than ending outside.
        start = jnp.minimum(i * block, Q - block)
        rows = jax.lax.dynamic_slice(scores, (start, jnp.int32(0)), (block, G))
        query = jax.lax.dynamic_slice(labels.query, (start,), (block,))
        camera = jax.lax.dynamic_slice(labels.query_camera, (start,), (block,))
        kept, positive = _relevance(labels, query, camera, None)
        ranks = _count_ahead(rows, kept, positive, width)
        ranks = jax.lax.dynamic_update_slice(state[0], ranks, (start, jnp.int32(0)))
        counts = [
            jax.lax.dynamic_update_slice(
                old, which.sum(axis=1, dtype=jnp.int32), (start,)
            )
            for old, which in zip(state[1:], (positive, kept), strict=True)
        ]
        return ranks, counts[0], counts[1]

    none = jnp.zeros((Q,), jnp.int32)
    empty = jnp.zeros((Q, width), jnp.int32), none, none
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(-(-Q // block)), one_block, empty)


def _count_ahead(
    rows: jax.Array, kept: jax.Array, positive: jax.Array, width: int
) -> jax.Array:
    """Ranks `[b, width]` of the positives: the kept images ahead of each, plus one."""
    b, G = rows.shape
    # Minus infinity marks what is removed; a score of minus infinity stays above it.
    rows = jnp.maximum(rows, jnp.finfo(rows.dtype).min)
    rows = jnp.where(kept, rows, -jnp.inf)  # [b, G]
    place, level = best(jnp.where(positive, rows, -jnp.inf), width)  # [b, width]
    piece = -(-G // _PIECES)
    pad = piece * _PIECES - G
    rows = jnp.pad(rows, ((0, 0), (0, pad)), constant_values=-jnp.inf)
    image = jnp.arange(piece * _PIECES, dtype=jnp.int32)
    step = min(_POSITIVES, width)

    def ahead(at: jax.Array) -> jax.Array:
        score = jax.lax.dynamic_slice(level, (jnp.int32(0), at), (b, 1))
        index = jax.lax.dynamic_slice(place, (jnp.int32(0), at), (b, 1))
        total = jnp.zeros((b, piece), jnp.int32)
        for cut in range(0, piece * _PIECES, piece):
            part = rows[:, cut : cut + piece]
            earlier = image[None, cut : cut + piece] < index
            first = (part > score) | ((part == score) & earlier)
            total = total + first.astype(jnp.int32)
        return total.sum(axis=1, dtype=jnp.int32)

    def count(i: jax.Array, ranks: jax.Array) -> jax.Array:
        start = jnp.minimum(i * step, width - step)
        new = jnp.stack([ahead(start + j) for j in range(step)], axis=1)
        return jax.lax.dynamic_update_slice(ranks, new + 1, (jnp.int32(0), start))

    most = positive.sum(axis=1, dtype=jnp.int32).max()
    ranks = jnp.full((b, width), _ABSENT, jnp.int32)
    ranks = jax.lax.fori_loop(jnp.int32(0), -(-most // step), count, ranks)
    return jnp.where(level > -jnp.inf, ranks, _ABSENT)


@jax.jit
def _list_ranks(ids: jax.Array, labels: _Labels) -> tuple[jax.Array, jax.Array]:
    """Ranks `[Q, K]` of the positives among listed images, and all positives `[Q]`."""

    def one_query(row: tuple[jax.Array, jax.Array, jax.Array]):
        images, query, camera = row
        kept, positive = _relevance(labels, query[None], camera[None], images[None])
        rank = jnp.cumsum(kept[0], dtype=jnp.int32)
        everything = _relevance(labels, query[None], camera[None], None)[1]
        found = jnp.where(positive[0], rank, _ABSENT)
        return jnp.sort(found), everything.sum(dtype=jnp.int32)

    rows = (ids, labels.query, labels.query_camera)
    return jax.lax.map(one_query, rows, batch_size=_QUERIES)


@functools.partial(
    jax.jit, static_argnames=("top", "ap_denominator", "ap_method", "max_rank")
)
def _evaluation(
    ranks: jax.Array,
    positives: jax.Array,
    *,
    top: int | None,
    ap_denominator: str,
    ap_method: str,
    max_rank: int,
) -> Evaluation:
    """Metrics from rising ranks `[Q, W]` (absent ones last) and positives `[Q]`."""
    limit = _ABSENT - 1 if top is None else min(top, _ABSENT - 1)
    found = ranks <= limit
    hits = jnp.arange(1, ranks.shape[1] + 1, dtype=jnp.float32)[None]
    rank = jnp.where(found, ranks, 1).astype(jnp.float32)
    precision = hits / rank
    if ap_method == "trapezoid":
        before = jnp.where(rank > 1, (hits - 1) / jnp.maximum(rank - 1, 1), 1)
        precision = (precision + before) / 2
    valid = positives > 0
    share = positives if ap_denominator == "positives" else positives.clip(max=limit)
    total = jnp.where(found, precision, 0).sum(axis=1)
    ap = jnp.where(valid, total / jnp.maximum(share, 1), jnp.nan)

    complete = valid & (found.sum(axis=1, dtype=jnp.int32) == positives)
    last = jnp.where(found, rank, 1).max(axis=1)
    inp = jnp.where(complete, positives / last, 0)
    first = jnp.where(valid & found[:, 0], ranks[:, 0], _ABSENT)
    places = jnp.arange(1, max_rank + 1, dtype=jnp.int32)
    hit = (first[:, None] <= places[None]).sum(axis=0, dtype=jnp.int32)
    count = valid.sum(dtype=jnp.int32).astype(jnp.float32)
    return Evaluation(
        mean_ap=jnp.where(valid, ap, 0).sum() / count,
        cmc=hit / count,
        mean_inp=inp.sum() / count,
        average_precision=ap,
        valid=valid,
    )
