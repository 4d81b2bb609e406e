"""k-reciprocal re-ranking (section 3.2, eq. 7 and 8), on sparse rows throughout."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dex_jax._checks import Count, check_masked_count, is_concrete
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._mesh import (
    RowShards,
    gather_lists,
    on_parts,
    part_start,
    row_shards,
)
from dex_jax.neighbors._search import limit_count
from dex_jax.rerank._embeddings import Ranking, best, unit_pair
from dex_jax.rerank._k_reciprocal_jaccard import Support, over_gallery, query_support
from dex_jax.rerank._k_reciprocal_sets import (
    Encoding,
    Members,
    Reach,
    distance,
    encode,
    expand,
    pool_neighbors,
)
from dex_jax.rerank._kinds import Graph, Tile, adjusted, unmarked


class Options(NamedTuple):
    """The options of `k_reciprocal`, checked by `read_options`."""

    k1: Count
    k2: Count
    lambda_: float | jax.Array


class _Encoded(NamedTuple):
    encoding: Encoding
    support: Support
    nearest: jax.Array | None  # [G, K] pool ids whose encodings are averaged
    k2: jax.Array | None  # the first of these that count; None for all
    minimum: jax.Array  # [Q] smallest cosine of each query over the pool


def k_reciprocal(
    query: jax.Array | np.ndarray,
    gallery: jax.Array | np.ndarray,
    *,
    k1: int | jax.Array = 60,
    k2: int | jax.Array = 30,
    lambda_: float | jax.Array = 0.5,
    k1_max: int | None = None,
    k2_max: int | None = None,
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
    they take the largest sizes possible, which costs memory. With `k1_max` the sizes
    fit that, so that a loop over `k1` compiles its kernels once.

    Args:
        query: `[Q, D]`, finite, no zero row; rows need not be unit length.
        gallery: `[G, D]`, the same.
        k1: neighbours of the full lists; beyond the pool: all there is, and one
            warning.
        k2: images averaged, the image itself counted; 1 for none. Beyond the pool: all
            there is, and one warning.
        lambda_: weight of the original distance, 0 to 1; may be traced.
        k1_max: if given, the static width of the full lists, and `k1` may be traced:
            what lies beyond `k1` is masked. Beyond the pool: all there is, and one
            warning.
        k2_max: the same for `k2`.

    Returns:
        Scores `[Q, G]`: 1 - final distance, larger is better.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, a count below 1,
            above its maximum or traced without it, or `lambda_` outside 0 to 1 (values
            are checked only when concrete).

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
        >>> scores = k_reciprocal(jnp.array([[1.0, 0.0]]), gallery, k1=2, k2=1)
        >>> scores.argmax().item()
        0
    """
    query, gallery = unit_pair(query, gallery)
    options = read_options(k1, k2, lambda_, k1_max, k2_max)
    return reciprocal_scores(query, gallery, options)


def read_options(
    k1: int | jax.Array,
    k2: int | jax.Array,
    lambda_: float | jax.Array,
    k1_max: int | None,
    k2_max: int | None,
) -> Options:
    """Reads the options of `k_reciprocal`, of which `lambda_` may be traced.

    Raises:
        ValueError: a count below 1, above its maximum or traced without it, or
            `lambda_` outside 0 to 1 (checked only when concrete).
    """
    counts = check_masked_count(k1, k1_max, "k1"), check_masked_count(k2, k2_max, "k2")
    if is_concrete(lambda_) and not 0 <= float(lambda_) <= 1:
        raise ValueError(f"lambda_: expected a number from 0 to 1, got {lambda_}")
    return Options(*counts, lambda_)


def reciprocal_scores(
    query: jax.Array,
    gallery: jax.Array,
    options: Options,
    graph: Graph | None = None,
) -> jax.Array:
    """`k_reciprocal` for unit rows; `graph` is the gallery's own, if known already."""
    found = _prepare(query, gallery, options, graph)
    lambda_ = jnp.asarray(options.lambda_, jnp.float32)
    return _scores(query, gallery, found, lambda_, shards=row_shards(gallery))


def reciprocal_ranking(
    query: jax.Array,
    gallery: jax.Array,
    options: Options,
    graph: Graph | None = None,
    *,
    top: int,
    tiles: tuple[Tile, ...] = (),
) -> Ranking:
    """The best `top` of `reciprocal_scores`, without ever holding Q x G.

    Args:
        query: `[Q, D]` unit rows.
        gallery: `[G, D]` unit rows.
        options: those of `k_reciprocal`.
        graph: the gallery's own lists, itself counted, at least `max(k1 + 1, k2)` wide
            or G, and the smallest cosine of each image over the gallery.
        top: images kept for each query, at most G.
        tiles: steps that change tiles of the scores before the best are kept.
    """
    found = _prepare(query, gallery, options, graph)
    lambda_ = jnp.asarray(options.lambda_, jnp.float32)
    return _ranking(
        query, gallery, found, lambda_, tiles, top=top, shards=row_shards(gallery)
    )


def _prepare(
    query: jax.Array,
    gallery: jax.Array,
    options: Options,
    graph: Graph | None,
) -> _Encoded:
    """Everything but the comparison with the gallery, in sizes that fit the data."""
    N = query.shape[0] + gallery.shape[0]
    # As in the authors' code, the half list is half of the k1 asked for, not of what
    # is left of it in a small pool.
    asked = options.k1
    half = min(round(asked.width / 2), N - 1)
    k1, k2 = limit_count(asked, N - 1, "k1"), limit_count(options.k2, N, "k2")
    reach = None
    if asked.value is not None:
        near = jnp.round(asked.value / 2).astype(jnp.int32)
        reach = Reach(jnp.minimum(asked.value, k1.width), jnp.minimum(near, half))
    pool = pool_neighbors(query, gallery, graph, width=max(k1.width + 1, k2.width))
    members = _members(pool.ids[:, : k1.width + 1], reach, half)
    encoding = encode(jnp.concatenate([query, gallery]), pool, members)
    averaged = _averaged(pool.ids, k2)
    lists = averaged[: query.shape[0]]
    worst_size = min(N, k2.width * encoding.ids.shape[1])
    size, known = _guess(20 * k1.width, worst_size, encoding.weights, k2.value)
    support = _support(encoding, lists, k2.value, size=size)
    if not known and int(support.most) > size:
        size = _round_up(int(support.most), worst_size)
        support = _support(encoding, lists, k2.value, size=size)
    minimum = pool.minimum[: query.shape[0]]
    nearest = averaged[query.shape[0] :]
    return _Encoded(encoding, support, nearest, k2.value, minimum)


def _averaged(ids: jax.Array, k2: Count) -> jax.Array:
    """Whose encodings are averaged, `[N, k2]`: at 1 no one's but the image's own.

    Behind more duplicates than a list holds, the image is not the first of its own.
    """
    own = jnp.arange(ids.shape[0], dtype=ids.dtype)
    if k2.width == 1:
        return own[:, None]
    if k2.value is None:
        return ids[:, : k2.width]
    first = jnp.where(k2.value == 1, own, ids[:, 0])
    return ids[:, : k2.width].at[:, 0].set(first)


def _members(ids: jax.Array, reach: Reach | None, half: int) -> Members:
    """The sets of lists `[N, K]`, in as few slots for members from outside as fit."""
    N, K = ids.shape
    # The 2/3 rule leaves each accepted set fewer than a third of its members to bring.
    worst = min(N, K * max(1, half // 3))
    extra, known = _guess(1.5 * (K - 1), worst, ids, reach)
    if known:
        return expand(ids, reach, half=half, extra=extra)

    def fit(reach: Reach | None, extra: int) -> Members:
        members = expand(ids, reach, half=half, extra=extra)
        while int(members.most) > extra:
            extra = _round_up(int(members.most), worst)
            members = expand(ids, reach, half=half, extra=extra)
        return members

    most = 0
    if reach is not None:
        # What the largest k1 takes: a loop over k1 then finds its kernels compiled.
        ends = Reach(jnp.asarray(K - 1, jnp.int32), jnp.asarray(half, jnp.int32))
        widest = fit(ends, extra)
        extra, most = widest.extra.shape[1], int(widest.most)
    members = fit(reach, extra)
    # Slots that no row uses would be carried through all that follows.
    extra = _round_up(max(most, int(members.most)), worst)
    return members._replace(extra=members.extra[:, :extra])


def _guess(guess: float, worst: int, *data: object) -> tuple[int, bool]:
    """A size to try, and whether it is certain to suffice."""
    if not is_concrete(*jax.tree.leaves(data)) or guess >= worst:
        return worst, True
    return _round_up(int(guess), worst), False


def _round_up(size: int, worst: int) -> int:
    # Steps of a quarter: sizes of similar data meet, and nothing compiles again.
    step = 2 ** max(2, size.bit_length() - 3)
    return min(worst, max(step, -(-size // step) * step))


@functools.partial(jax.jit, static_argnames=("size",))
def _support(
    encoding: Encoding, lists: jax.Array, k2: jax.Array | None, *, size: int
) -> Support:
    return query_support(encoding, lists, k2, size=size)


@functools.partial(jax.jit, static_argnames=("shards",))
def _scores(
    query: jax.Array,
    gallery: jax.Array,
    found: _Encoded,
    lambda_: jax.Array,
    *,
    shards: RowShards | None,
) -> jax.Array:
    """Scores `[Q, G]`."""

    def part(own: tuple[jax.Array, jax.Array], whole) -> jax.Array:
        (gallery, nearest), (query, found, lambda_) = own, whole

        def take(scores: jax.Array, start: jax.Array, shared: jax.Array) -> jax.Array:
            tile = _blend(query, gallery, found.minimum, lambda_, start, shared)
            return lax.dynamic_update_slice_in_dim(scores, tile, start, 1)

        empty = jnp.zeros((query.shape[0], gallery.shape[0]))
        return over_gallery(
            found.support, found.encoding, nearest, found.k2, take, empty
        )

    whole = query, found._replace(nearest=None), lambda_
    return on_parts(part, shards, join=1)((gallery, found.nearest), whole)


@functools.partial(jax.jit, static_argnames=("top", "shards"))
def _ranking(
    query: jax.Array,
    gallery: jax.Array,
    found: _Encoded,
    lambda_: jax.Array,
    tiles: tuple[Tile, ...],
    *,
    top: int,
    shards: RowShards | None,
) -> Ranking:
    """The best `top` of each row of scores, kept up to date tile by tile."""

    def part(own: tuple[jax.Array, jax.Array], whole) -> Ranking:
        (gallery, nearest), (query, found, lambda_, tiles) = own, whole
        (Q, _), G = query.shape, gallery.shape[0]
        width, offset = min(top, G), part_start(shards, G)

        def take(
            state: tuple[Ranking, jax.Array], start: jax.Array, shared: jax.Array
        ) -> tuple[Ranking, jax.Array]:
            kept, seen = state
            tile = _blend(query, gallery, found.minimum, lambda_, start, shared)
            tile = adjusted(tile, tiles, jnp.int32(0), offset + start)
            ids = start + jnp.arange(tile.shape[1], dtype=jnp.int32)
            tile = jnp.where(ids[None] < seen, -jnp.inf, tile)
            # What is kept stands first and has lower ids: ties stay in gallery order.
            place = best(jnp.concatenate([kept.scores, tile], axis=1), width)
            ids = jnp.broadcast_to(ids[None] + offset, tile.shape)
            ids = jnp.concatenate([kept.ids, ids], axis=1)
            ids = jnp.take_along_axis(ids, place.ids, axis=1)
            return Ranking(ids, place.scores), start + tile.shape[1]

        none = Ranking(jnp.zeros((Q, width), jnp.int32), jnp.full((Q, width), -jnp.inf))
        kept = over_gallery(
            found.support, found.encoding, nearest, found.k2, take, (none, jnp.int32(0))
        )[0]
        return unmarked(Ranking(*gather_lists(Neighbors(*kept), shards, top)))

    whole = query, found._replace(nearest=None), lambda_, tiles
    return on_parts(part, shards, join=None)((gallery, found.nearest), whole)


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
