"""k-reciprocal re-ranking (section 3.2, eq. 7 and 8; Zhong et al., 2017).

Pool lists, reciprocal sets, encodings and Jaccard distances are put together here. All
are sparse rows of fixed width, whose widths are fitted to the data.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    Count,
    check_masked_count,
    check_number,
    is_concrete,
    on_any_mesh,
)
from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._pool import pool_lists
from dex_jax.neighbors._products import cosines
from dex_jax.neighbors._search import limit_count
from dex_jax.neighbors._split import SplitRows
from dex_jax.rerank._capacity import exact, round_up
from dex_jax.rerank._embeddings import Pair, all_asked, read_pair
from dex_jax.rerank._k_reciprocal_jaccard import (
    Compared,
    Support,
    compared,
    over_gallery,
    query_support,
)
from dex_jax.rerank._k_reciprocal_sets import (
    Encoding,
    Members,
    Reach,
    distance,
    encode,
    expand,
    without_derivative,
)
from dex_jax.rerank._scan import Carry, Scan, Tile, all_scores

Result = TypeVar("Result")

# The table of encodings is reduced to the points of the supports in pools of at least
# so many, where these are so many times more than the points.
_LEAST_POINTS, _WORTH = 2**16, 2


class Options(NamedTuple):
    """The options of `k_reciprocal`, checked by `read_options`."""

    k1: Count
    k2: Count
    lambda_: float | jax.Array


@on_any_mesh
def k_reciprocal(
    query: ArrayLike,
    gallery: ArrayLike | SplitRows,
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

    Outside of `jit` and on one device queries are padded inside to few sizes (see
    `nearest_neighbors`), so that other numbers of queries reuse compiled programs;
    padding is no part of the pool. CPUs and accelerators run different kernels, whose
    scores differ by rounding (see `dex_jax.neighbors.form`).

    Can be differentiated in `lambda_` alone. Sets of neighbours have no derivative in
    the embeddings, and one of 0 would be wrong silently: it is an error.

    Args:
        query: `[Q, D]` numbers, finite, no zero row; read as float32. Rows need not be
            unit length.
        gallery: `[G, D]`, the same. Rows may be split over a mesh.
        k1: neighbours of the full lists, at least 1; beyond the pool: all there is,
            and one warning.
        k2: images averaged, the image itself counted; 1 for none. Beyond the pool: all
            there is, and one warning.
        lambda_: weight of the original distance, 0 to 1; may be traced.
        k1_max: if given, the static width of the full lists, and `k1` may be traced:
            what lies beyond `k1` is masked. Beyond the pool: all there is, and one
            warning.
        k2_max: the same for `k2`.

    Returns:
        Scores `[Q, G]` float32: 1 - final distance, from 0 to 1 up to rounding; larger
        is better.

    Raises:
        ValueError: rows that cannot be ranked, different dimensions, a count below 1,
            above its maximum or traced without it, or `lambda_` outside 0 to 1 (values
            are checked only when concrete); a derivative in `query` or `gallery`.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
        >>> scores = k_reciprocal(jnp.array([[1.0, 0.0]]), gallery, k1=2, k2=1)
        >>> scores.argmax().item()
        0
    """
    pair = read_pair(query, gallery)
    options = read_options(k1, k2, lambda_, k1_max, k2_max)
    scores = with_sizes(pair, None, options, all_scores)
    return all_asked(scores, pair)


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
    lambda_ = check_number(lambda_, "lambda_", least=0, most=1)
    return Options(*counts, lambda_)


class _Plan(NamedTuple):
    """Sizes of lists, from the options and the number of images there are."""

    k1: Count
    k2: Count
    half: int  # static reach of the half lists
    reach: Reach | None  # what of the lists counts; None for all

    @property
    def width(self) -> int:
        """Entries of the pool's lists that are read."""
        return max(self.k1.width + 1, self.k2.width)


def with_sizes(
    pair: Pair,
    lists: NeighborLists | None,
    options: Options,
    run: Callable[[Scan], Result],
) -> Result:
    """Runs something on the scores of `k_reciprocal`, in sizes that fit the data.

    Args:
        pair: unit rows of queries and gallery.
        lists: the gallery's own lists with their minima, the image itself counted, at
            least `max(k1 + 1, k2)` wide or as wide as there are images; None where
            nobody has made them.
        options: those of `k_reciprocal`.
        run: what is made of the scan.
    """
    query, gallery = without_derivative((pair.query, pair.gallery))
    pair = pair._replace(query=query, gallery=gallery)
    plan = _plan(options, pair.number + pair.images)
    counts = {"queries": pair.queries, "images": pair.images}
    pool = pool_lists(query, gallery, lists, width=plan.width, **counts)
    rows = jnp.concatenate([query, gallery])
    averaged = _averaged(
        pool.ids, plan.k2.value, width=plan.k2.width, padded=query.shape[0], **counts
    )

    def measure() -> _Sizes:
        tried, extra = _measure_members(pool.ids, plan)
        members = _members(pool.ids, plan, tried, extra)
        encoding = encode(rows, pool, members)
        lists = averaged[: pair.query.shape[0]]
        support = _measure_support(encoding, lists, plan)
        points = _measure_points(encoding, support)
        return _Sizes(tried, extra, support.ids.shape[1], points)

    def in_sizes(sizes: _Sizes) -> tuple[Result, jax.Array]:
        members = _members(pool.ids, plan, sizes.tried, sizes.extra)
        encoding = encode(rows, pool, members)
        lists = averaged[: pair.query.shape[0]]
        support = query_support(encoding, lists, plan.k2.value, size=sizes.support)
        found = compared(encoding, support, points=sizes.points)
        scan = _scan(pair, pool, found, averaged, plan, options.lambda_, sizes.points)
        most = members.most
        needed = jnp.stack([most, most, support.most, found.needed])
        return run(scan), needed

    worst = _worst(pool.ids, plan)
    data = (pool.ids, plan.reach, plan.k2.value)
    if not is_concrete(*jax.tree.leaves(data)):
        return in_sizes(worst)[0]
    key = (rows.shape, pair.query.shape, plan.k1.width, plan.k2.width, plan.half)
    return exact((*key, plan.reach is None), measure, in_sizes)


class _Sizes(NamedTuple):
    """Sizes that depend on data."""

    tried: int  # slots for members from outside a list, while sets are made
    extra: int  # slots kept: as many as the fullest row uses; encodings are wider by it
    support: int  # entries of a query's mean encoding
    points: int  # of the pool that stand in any support


def _plan(options: Options, size: int) -> _Plan:
    """Lists of at most the `size` images that there are."""
    # As in the authors' code, the half list is half of the k1 asked for, not of what
    # is left of it in a small pool.
    asked = options.k1
    half = min(round(asked.width / 2), size - 1)
    k1 = limit_count(asked, size - 1, "k1")
    k2 = limit_count(options.k2, size, "k2")
    reach = None
    if asked.value is not None:
        near = jnp.round(asked.value / 2).astype(jnp.int32)
        reach = Reach(jnp.minimum(asked.value, k1.width), jnp.minimum(near, half))
    return _Plan(k1, k2, half, reach)


def _worst(ids: jax.Array, plan: _Plan) -> _Sizes:
    """The largest sizes possible."""
    N, K = ids.shape[0], plan.k1.width + 1
    # A half set is united only if more than 2/3 of it is in the set already: it adds
    # less than a third of its members.
    extra = min(N, K * max(1, plan.half // 3))
    return _Sizes(extra, extra, min(N, plan.k2.width * (K + extra)), N)


def _members(ids: jax.Array, plan: _Plan, tried: int, extra: int) -> Members:
    lists = ids[:, : plan.k1.width + 1]
    members = expand(lists, plan.reach, half=plan.half, extra=tried)
    return members._replace(extra=members.extra[:, :extra])


def _measure_members(ids: jax.Array, plan: _Plan) -> tuple[int, int]:
    """Slots for members from outside the lists: to try, and those that are used."""
    worst = _worst(ids, plan).extra
    plans = [plan]
    if plan.reach is not None:
        # Sizes fit the largest k1 too, so that a loop over k1 finds kernels compiled.
        ends = Reach(jnp.int32(plan.k1.width), jnp.int32(plan.half))
        plans.append(plan._replace(reach=ends))
    tried = round_up(int(1.5 * plan.k1.width), worst)
    while True:
        most = max(int(_members(ids, each, tried, 0).most) for each in plans)
        if most <= tried:
            return tried, round_up(most, worst)
        # Where slots ran out the count is a lower bound.
        tried = round_up(most, worst)


def _measure_support(encoding: Encoding, lists: jax.Array, plan: _Plan) -> Support:
    """Supports of the queries' `lists` `[Q, K]`, in as many slots as the largest."""
    worst = min(encoding.ids.shape[0], plan.k2.width * encoding.ids.shape[1])
    size = round_up(20 * plan.k1.width, worst)
    while True:
        support = query_support(encoding, lists, plan.k2.value, size=size)
        if int(support.most) <= size:
            return support
        size = round_up(int(support.most), worst)


def _measure_points(encoding: Encoding, support: Support) -> int:
    """Rows of the table of encodings: the whole pool where that is not much more."""
    N = encoding.ids.shape[0]
    if is_wide() or N < _LEAST_POINTS:
        return N
    needed = int(compared(encoding, support, points=N - 1).needed)
    return round_up(needed, N) if _WORTH * needed < N else N


@functools.partial(jax.jit, static_argnames=("width", "padded", "images"))
def _averaged(
    ids: jax.Array,
    k2: jax.Array | None,
    *,
    queries: jax.Array,
    width: int,
    padded: int,
    images: int,
) -> jax.Array:
    """Whose encodings are averaged, `[N, width]` pool ids; with `k2` 1 the image's own.

    That cannot be read from the list: the image is not first where a duplicate of
    lower index stands before it.
    """
    own = jnp.arange(ids.shape[0], dtype=jnp.int32)
    if width == 1:
        return own[:, None]
    lists = ids[:, :width]
    if k2 is not None:
        lists = lists.at[:, 0].set(jnp.where(k2 == 1, own, lists[:, 0]))
    # Padding stands in no list, so its encoding is empty: averaging it, instead of the
    # neighbours that it has, leaves its support empty too.
    pads = ((own >= queries) & (own < padded)) | (own >= padded + images)
    return jnp.where(pads[:, None], own[:, None], lists)


class _Own(NamedTuple):
    """What is split over a mesh like the gallery."""

    gallery: jax.Array  # [G, D] unit rows
    nearest: jax.Array  # [G, K] pool ids whose encodings are averaged


class _Whole(NamedTuple):
    """What every device sees whole."""

    query: jax.Array  # [Q, D] unit rows
    minimum: jax.Array  # [Q] smallest cosine of each query over the pool
    found: Compared  # encodings of the pool, and mean encodings of the queries
    k2: jax.Array | None  # how many of `nearest` count; None for all
    lambda_: jax.Array  # scalar float32


def _scan(
    pair: Pair,
    pool: NeighborLists,
    found: Compared,
    averaged: jax.Array,
    plan: _Plan,
    lambda_: float | jax.Array,
    points: int,
) -> Scan:
    Q, G = pair.query.shape[0], pair.gallery.shape[0]
    weight = jnp.asarray(lambda_, jnp.float32)
    minimum = pool.minimum[:Q]
    return Scan(
        own=_Own(pair.gallery, averaged[Q:]),
        whole=_Whole(pair.query, minimum, found, plan.k2.value, weight),
        tiles=_Compare(points),
        sizes=(Q, G),
        images=pair.images,
        split="gallery",
        shards=row_shards(pair.gallery),
    )


@dataclass(frozen=True)
class _Compare:
    """Tiles of `1 - final distance`: all queries, one part of the gallery each.

    Attributes:
        points: rows of the table of encodings.
    """

    points: int

    def __call__(
        self,
        own: _Own,
        whole: _Whole,
        take: Callable[[Carry, Tile], Carry],
        carry: Carry,
    ) -> Carry:
        def blend(carry: Carry, start: jax.Array, shared: jax.Array) -> Carry:
            images = lax.dynamic_slice_in_dim(own.gallery, start, shared.shape[1])
            apart = distance(cosines(whole.query, images), whole.minimum)
            scores = 1 - (1 - whole.lambda_) * (1 - shared) - whole.lambda_ * apart
            return take(carry, Tile(scores, jnp.int32(0), start))

        return over_gallery(
            whole.found, own.nearest, whole.k2, blend, carry, points=self.points
        )
