"""k-reciprocal re-ranking (section 3.2, eq. 7 and 8), on sparse rows throughout."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax._checks import (
    check_count,
    check_rows,
    check_same_width,
    is_concrete,
    unit_rows,
)
from dex_jax.neighbors import Neighbors, limit_k
from dex_jax.rerank._embeddings import Ranking, best
from dex_jax.rerank._jaccard import Support, over_gallery, query_support
from dex_jax.rerank._k_reciprocal_sets import (
    Encoding,
    distance,
    encode,
    expand,
    pool_neighbors,
)
from dex_jax.rerank._kinds import Tile, adjusted, unmarked


class _Encoded(NamedTuple):
    encoding: Encoding
    support: Support
    nearest: jax.Array  # [G, k2] pool ids whose encodings are averaged
    minimum: jax.Array  # [Q] smallest cosine of each query over the pool


def k_reciprocal(
    query: jax.Array | np.ndarray,
    gallery: jax.Array | np.ndarray,
    *,
    k1: int = 60,
    k2: int = 30,
    lambda_: float | jax.Array = 0.5,
) -> jax.Array:
    """Re-ranks by the neighbours that two images share (Zhong et al., 2017).

    Section 3.2, eq. 7 and 8: two images are k-reciprocal neighbours when each stands
    among the `k1` nearest of the other. Each image is encoded by its reciprocal
    neighbours, the sets expanded by those of its neighbours that lie in them by more
    than two thirds, and averaged over the `k2` nearest images; the Jaccard distance of
    the encodings is blended with the original distance.

    It follows the authors' public code where that differs from the paper: lists of
    `k1 + 1` with the image itself, queries and gallery in one pool, a strict > 2/3,
    half lists of `k1 / 2` rounded half to even, the original distance the squared
    Euclidean one over its largest value for each query.

    No array of pool x pool is made. The kernels are compiled for sizes that fit what
    the data need; inside the caller's `jit` or `vmap`, where data cannot be looked at,
    they take the largest sizes possible, which costs memory.

    Args:
        query: `[Q, D]`, finite, no zero row; rows need not be unit length.
        gallery: `[G, D]`, the same.
        k1: neighbours of the full lists; static. Beyond the pool: all there is, and one
            warning.
        k2: images averaged, the image itself counted; 1 for none; static. Beyond the
            pool: all there is, and one warning.
        lambda_: weight of the original distance, 0 to 1; may be traced.

    Returns:
        Scores `[Q, G]`: 1 - final distance, larger is better.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, a count below 1,
            or `lambda_` outside 0 to 1 (values are checked only when concrete).

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
        >>> scores = k_reciprocal(jnp.array([[1.0, 0.0]]), gallery, k1=2, k2=1)
        >>> scores.argmax().item()
        0
    """
    query, gallery = check_rows(query, "query"), check_rows(gallery, "gallery")
    check_same_width(query, gallery, "query", "gallery")
    return reciprocal_scores(
        unit_rows(query), unit_rows(gallery), k1=k1, k2=k2, lambda_=lambda_
    )


def reciprocal_scores(
    query: jax.Array,
    gallery: jax.Array,
    *,
    k1: int,
    k2: int,
    lambda_: float | jax.Array,
    graph: tuple[Neighbors, jax.Array] | None = None,
) -> jax.Array:
    """`k_reciprocal` for unit rows; `graph` is the gallery's own, if known already."""
    lambda_ = check_lambda(lambda_)
    found = _prepare(query, gallery, k1, k2, graph)
    return _scores(query, gallery, found, lambda_)


def reciprocal_ranking(
    query: jax.Array,
    gallery: jax.Array,
    *,
    k1: int,
    k2: int,
    lambda_: float | jax.Array,
    top: int,
    graph: tuple[Neighbors, jax.Array] | None = None,
    tiles: tuple[Tile, ...] = (),
) -> Ranking:
    """The best `top` of `reciprocal_scores`, without ever holding Q x G.

    Args:
        query: `[Q, D]` unit rows.
        gallery: `[G, D]` unit rows.
        k1: as in `k_reciprocal`.
        k2: as in `k_reciprocal`.
        lambda_: as in `k_reciprocal`.
        top: images kept for each query, at most G.
        graph: the gallery's own lists, itself counted, at least `max(k1 + 1, k2)` wide
            or G, and the smallest cosine of each image over the gallery.
        tiles: steps that change tiles of the scores before the best are kept.
    """
    lambda_ = check_lambda(lambda_)
    found = _prepare(query, gallery, k1, k2, graph)
    return _ranking(query, gallery, found, lambda_, tiles, top=top)


def check_lambda(lambda_: float | jax.Array) -> jax.Array:
    """Reads the blending weight, a number from 0 to 1.

    Raises:
        ValueError: outside 0 to 1 (checked only when concrete).
    """
    if is_concrete(lambda_) and not 0 <= float(lambda_) <= 1:
        raise ValueError(f"lambda_: expected a number from 0 to 1, got {lambda_}")
    return jnp.asarray(lambda_, jnp.float32)


def _prepare(
    query: jax.Array,
    gallery: jax.Array,
    k1: int,
    k2: int,
    graph: tuple[Neighbors, jax.Array] | None,
) -> _Encoded:
    """Everything but the comparison with the gallery, in sizes that fit the data."""
    N = query.shape[0] + gallery.shape[0]
    k1, k2 = check_count(k1, "k1"), check_count(k2, "k2")
    # As the authors' code: the half list hangs on the k1 asked for.
    half = min(round(k1 / 2), N - 1)
    k1, k2 = limit_k(k1, N - 1, "k1"), limit_k(k2, N, "k2")
    pool = pool_neighbors(query, gallery, graph, width=max(k1 + 1, k2))
    ids = pool.ids[:, : k1 + 1]
    # The 2/3 rule leaves each accepted set fewer than a third of its members to bring.
    worst_extra = min(N, (k1 + 1) * max(1, half // 3))
    extra, known = _guess(1.5 * k1, worst_extra, ids)
    members = expand(ids, half=half, extra=extra)
    while not known and int(members.most) > extra:
        extra = _round_up(int(members.most), worst_extra)
        members = expand(ids, half=half, extra=extra)
    if not known:
        # Slots that no row uses would be carried through all that follows.
        extra = _round_up(int(members.most), worst_extra)
        members = members._replace(extra=members.extra[:, :extra])
    encoding = encode(jnp.concatenate([query, gallery]), pool, members)
    lists = pool.ids[: query.shape[0], :k2]
    worst_size = min(N, k2 * encoding.ids.shape[1])
    size, known = _guess(20 * k1, worst_size, ids)
    support = _support(encoding, lists, size=size)
    if not known and int(support.most) > size:
        size = _round_up(int(support.most), worst_size)
        support = _support(encoding, lists, size=size)
    nearest = pool.ids[query.shape[0] :, :k2]
    return _Encoded(encoding, support, nearest, pool.minimum[: query.shape[0]])


def _guess(guess: float, worst: int, data: jax.Array) -> tuple[int, bool]:
    """A size to try, and whether it is certain to suffice."""
    if not is_concrete(data) or guess >= worst:
        return worst, True
    return _round_up(int(guess), worst), False


def _round_up(size: int, worst: int) -> int:
    # Steps of a quarter: sizes of similar data meet, and nothing compiles again.
    step = 2 ** max(2, size.bit_length() - 3)
    return min(worst, max(step, -(-size // step) * step))


@functools.partial(jax.jit, static_argnames=("size",))
def _support(encoding: Encoding, lists: jax.Array, *, size: int) -> Support:
    return query_support(encoding, lists, size=size)


@jax.jit
def _scores(
    query: jax.Array, gallery: jax.Array, found: _Encoded, lambda_: jax.Array
) -> jax.Array:
    """Scores `[Q, G]`."""

    def take(scores: jax.Array, start: jax.Array, shared: jax.Array) -> jax.Array:
        tile = _blend(query, gallery, found.minimum, lambda_, start, shared)
        return lax.dynamic_update_slice_in_dim(scores, tile, start, 1)

    empty = jnp.zeros((query.shape[0], gallery.shape[0]))
    return over_gallery(found.support, found.encoding, found.nearest, take, empty)


@functools.partial(jax.jit, static_argnames=("top",))
def _ranking(
    query: jax.Array,
    gallery: jax.Array,
    found: _Encoded,
    lambda_: jax.Array,
    tiles: tuple[Tile, ...],
    *,
    top: int,
) -> Ranking:
    """The best `top` of each row of scores, kept up to date tile by tile."""
    Q = query.shape[0]

    def take(
        state: tuple[Ranking, jax.Array], start: jax.Array, shared: jax.Array
    ) -> tuple[Ranking, jax.Array]:
        kept, seen = state
        tile = _blend(query, gallery, found.minimum, lambda_, start, shared)
        tile = adjusted(tile, tiles, jnp.int32(0), start)
        ids = start + jnp.arange(tile.shape[1], dtype=jnp.int32)
        tile = jnp.where(ids[None] < seen, -jnp.inf, tile)
        # What is kept stands first and has lower ids: ties stay in gallery order.
        place = best(jnp.concatenate([kept.scores, tile], axis=1), top)
        ids = jnp.broadcast_to(ids[None], tile.shape)
        ids = jnp.concatenate([kept.ids, ids], axis=1)
        ids = jnp.take_along_axis(ids, place.ids, axis=1)
        return Ranking(ids, place.scores), start + tile.shape[1]

    none = Ranking(jnp.zeros((Q, top), jnp.int32), jnp.full((Q, top), -jnp.inf))
    first = none, jnp.int32(0)
    kept = over_gallery(found.support, found.encoding, found.nearest, take, first)[0]
    return unmarked(kept)


def _blend(
    query: jax.Array,
    gallery: jax.Array,
    minimum: jax.Array,
    lambda_: jax.Array,
    start: jax.Array,
    shared: jax.Array,
) -> jax.Array:
    """1 - final distance `[Q, tile]` from the Jaccard similarity of the tile."""
    images = lax.dynamic_slice_in_dim(gallery, start, shared.shape[1])
    cosine = jnp.matmul(query, images.T, precision="highest")
    return 1 - (1 - lambda_) * (1 - shared) - lambda_ * distance(cosine, minimum)
