"""Tracklets: grouping images by id, mean embeddings, and the pull-in of tracklets.

A tracklet is the images of one vehicle in one camera's track; an image whose id is -1
belongs to none and is a tracklet of its own. Groups are arrays of fixed size, so that
all of this runs under `jit`.
"""

import functools
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Sharding

from dex_jax._checks import (
    ArrayLike,
    check_choice,
    check_ids,
    host_value,
    is_concrete,
    on_any_mesh,
    read_array,
    warn_user,
)
from dex_jax.neighbors._mesh import row_shards
from dex_jax.neighbors._split import SplitRows, as_given, check_gallery
from dex_jax.neighbors._units import unit_set
from dex_jax.rerank._embeddings import Ranking, read_scores

# Bits of the smallest normal float32: XLA may flush smaller numbers to zero.
_TINY = 0x00800000
# Of the images of a tracklet that is pulled in.
ORDERS = ("gallery", "score")
# In sets of more images than this, one tracklet of more than half of them is noted.
_FEW = 10


class Tracklets(NamedTuple):
    """Images grouped by tracklet; tracklets are numbered by first appearance.

    Attributes:
        labels: `[G]` int32, the tracklet of each image.
        order: `[G]` int32, images sorted by tracklet, then by gallery index.
        starts: `[T]` int32, where a tracklet begins in `order`.
        counts: `[T]` int32, its number of images; 0 beyond the last tracklet, as T is
            rounded up.
    """

    labels: jax.Array
    order: jax.Array
    starts: jax.Array
    counts: jax.Array


def group_tracklets(tracklet_ids: jax.Array) -> Tracklets:
    """Groups checked ids `[G]`; T is G under tracing, where ids cannot be counted.

    Images of id -1 are tracklets of one image each. Warns where one tracklet has more
    than half of more than ten images.
    """
    size = tracklet_ids.shape[0]
    if not is_concrete(tracklet_ids):
        return _group(tracklet_ids, size=size)
    # Known ids, such as those that a caller's jit closes over, stay known.
    with jax.ensure_compile_time_eval():
        ids = host_value(tracklet_ids)
        known, counts = np.unique(ids[ids != -1], return_counts=True)
        alone = int((ids == -1).sum())
        most = int(counts.max(initial=0))
        if size > _FEW and 2 * most > size:
            image = int(np.argmax(ids == known[counts.argmax()]))
            warn_user(
                f"tracklet_ids: {most} of {size} images have the id of image {image} "
                "and are one tracklet; images without a track need the id -1"
            )
        # A multiple of 64, so that similar numbers of tracklets share programs.
        size = min(size, -(-(known.size + alone) // 64) * 64)
        return _group(tracklet_ids, size=size)


@functools.partial(jax.jit, static_argnames=("size",))
def _group(tracklet_ids: jax.Array, *, size: int) -> Tracklets:
    G = tracklet_ids.shape[0]
    index = jnp.arange(G, dtype=jnp.int32)
    ids, image = lax.sort((tracklet_ids, index), num_keys=2)
    # Images of -1 follow each other there, and each opens a tracklet.
    opens = (ids[1:] != ids[:-1]) | (ids[1:] == -1)
    opens = jnp.concatenate([jnp.ones(1, bool), opens])
    first = jnp.zeros(G, jnp.int32).at[image].set(opens.astype(jnp.int32))
    # Right at the first image of each tracklet: how many tracklets appear before it.
    appearance = jnp.cumsum(first, dtype=jnp.int32) - 1  # [G] by gallery index
    # The place, in sorted order, of the first image of each image's tracklet.
    leader = lax.cummax(jnp.where(opens, index, 0))
    label = appearance[image[leader]]  # [G] of each sorted place
    counts = jnp.zeros(size, jnp.int32).at[label].add(1)
    starts = jnp.cumsum(counts, dtype=jnp.int32) - counts
    # From the order of ids to that of first appearance, index order inside a tracklet.
    place = starts[label] + index - leader
    return Tracklets(
        labels=jnp.zeros(G, jnp.int32).at[image].set(label),
        order=jnp.zeros(G, jnp.int32).at[place].set(image),
        starts=starts,
        counts=counts,
    )


def tracklet_means_of(
    gallery: jax.Array, tracklets: Tracklets, weights: jax.Array | None = None
) -> jax.Array:
    """Mean of the rows `[G, D]` of each tracklet, `[T, D]`; zero beyond the last one.

    With `weights` `[G]` the weighted mean.
    """
    T = tracklets.counts.shape[0]
    # Rows of padding (see `SplitRows`) have no label, and enter no mean.
    gallery = gallery[: tracklets.labels.shape[0]]
    rows = gallery if weights is None else gallery * weights[:, None]
    total = jax.ops.segment_sum(rows, tracklets.labels, T)
    share = (
        tracklets.counts.astype(rows.dtype)
        if weights is None
        else jax.ops.segment_sum(weights, tracklets.labels, T)
    )
    return total / jnp.where(share == 0, 1, share)[:, None]


@overload
def tracklet_means(
    gallery: SplitRows, tracklet_ids: ArrayLike, *, weights: ArrayLike | None = None
) -> SplitRows: ...
@overload
def tracklet_means(
    gallery: ArrayLike, tracklet_ids: ArrayLike, *, weights: ArrayLike | None = None
) -> jax.Array: ...
@on_any_mesh
def tracklet_means(
    gallery: ArrayLike | SplitRows,
    tracklet_ids: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> jax.Array | SplitRows:
    """Replaces each image's embedding by the mean of its tracklet.

    The mean is that of DEx (eq. 5), here in the place of the images. Can be
    differentiated in `gallery` and `weights`.

    Args:
        gallery: `[G, D]` numbers, finite, any row length but zero; read as float32 and
            scaled to unit length.
        tracklet_ids: `[G]` integers or text, equal for images of one track; an image of
            -1 (as text "-1" or "") has no track and keeps its own embedding. A warning
            says where more than half of the images are one tracklet.
        weights: `[G]`, at least 0, the share of each image in its mean (say, its
            sharpness or size); all equal if None.

    Returns:
        `[G, D]` float32 unit rows, equal bit by bit within a tracklet; SplitRows where
        the gallery was.

    Raises:
        ValueError: rows that cannot be ranked; ids or weights of another length or
            type; negative weights, or a tracklet whose weights are all zero.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> tracklet_means(gallery, jnp.array([4, 4, 9])).round(3)
        Array([[ 0.707,  0.707],
               [ 0.707,  0.707],
               [-1.   ,  0.   ]], dtype=float32)
    """
    rows, images = check_gallery(gallery, "gallery")
    ids = check_ids(tracklet_ids, "tracklet_ids", size=images)
    tracklets = group_tracklets(ids)
    shares = check_shares(read_shares(weights), tracklets)
    return as_given(averaged(unit_set(rows), tracklets, shares), gallery)


def averaged(
    gallery: jax.Array, tracklets: Tracklets, weights: jax.Array | None
) -> jax.Array:
    """`tracklet_means` of unit rows and grouped tracklets, split like the gallery."""
    shards = row_shards(gallery)
    place = None if shards is None else gallery.sharding
    return _averaged(gallery, tracklets, weights, place=place)


@functools.partial(jax.jit, static_argnames=("place",))
def _averaged(
    gallery: jax.Array,
    tracklets: Tracklets,
    weights: jax.Array | None,
    *,
    place: Sharding | None,
) -> jax.Array:
    means = unit_set(tracklet_means_of(gallery, tracklets, weights))
    # Rows of padding repeat the last image.
    more = gallery.shape[0] - tracklets.labels.shape[0]
    rows = means[jnp.pad(tracklets.labels, (0, more), mode="edge")]
    return rows if place is None else lax.with_sharding_constraint(rows, place)


def read_shares(weights: ArrayLike | None) -> jax.Array | None:
    """Reads the shares `[G]` of images in their means; a copy, as steps keep it.

    Raises:
        ValueError: another shape, or a value that is negative or not finite (values are
            checked only when concrete).
    """
    if weights is None:
        return None
    given = read_array(weights, "weights")
    whole = jnp.issubdtype(given.dtype, jnp.integer)
    if not (whole or jnp.issubdtype(given.dtype, jnp.floating)):
        raise ValueError(f"weights: expected real numbers, got dtype {given.dtype}")
    if given.ndim != 1:
        raise ValueError(f"weights: expected an array [G], got shape {given.shape}")
    with np.errstate(over="ignore", under="ignore"):  # refused as infinite
        shares = jnp.array(given.astype(jnp.float32))
    if is_concrete(shares):
        values = host_value(shares)
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if bad.size:
            raise ValueError(
                f"weights: expected finite values of at least 0, got {values[bad[0]]} "
                f"at {bad[0]}"
            )
    return shares


def check_shares(shares: jax.Array | None, tracklets: Tracklets) -> jax.Array | None:
    """Refuses shares of another number of images, or all zero in a tracklet.

    Raises:
        ValueError: such shares (values are checked only when concrete).
    """
    if shares is None:
        return None
    if shares.shape != tracklets.labels.shape:
        raise ValueError(
            f"weights: expected shape {tracklets.labels.shape}, got {shares.shape}"
        )
    if is_concrete(shares, tracklets.labels):
        values, labels = host_value(shares), host_value(tracklets.labels)
        empty = np.flatnonzero(np.bincount(labels, values)[labels] == 0)
        if empty.size:
            raise ValueError(
                f"weights: all zero in the tracklet of image {empty[0]}, expected one "
                "above 0"
            )
    return shares


@on_any_mesh
def tracklet_pull_in(
    scores: ArrayLike, tracklet_ids: ArrayLike, *, order: str = "gallery"
) -> jax.Array:
    """Pulls whole tracklets into a ranking ("+Tracklet" of Table 6).

    Going down the ranking, the place of the first image of a tracklet not yet seen is
    taken by all images of it, in gallery order: that first image itself may move back
    within them, and what stood behind it moves back behind them. Every image gets the
    best score of its tracklet; tracklets of equal best score are separated by the
    smallest steps of float32, so that sorting the result gives exactly that list. Can
    be differentiated in `scores`: each image has the derivative of its tracklet's best.

    Args:
        scores: `[Q, G]` real numbers, larger is better, finite or -inf, read as
            float32; a warning says where most different ones become equal.
        tracklet_ids: `[G]` integers or text, equal for images of one track; an image of
            -1 (as text "-1" or "") has no track and stays alone. A warning says where
            more than half of the images are one tracklet.
        order: of the images of a tracklet: "gallery", as in the paper's lists, or
            "score", best first, those of equal score in gallery order. The images are
            then separated by the smallest steps of float32, too.

    Returns:
        Scores `[Q, G]` float32.

    Raises:
        ValueError: scores of another rank, that are NaN or no real numbers or that
            float32 cannot hold; ids of another length or type; an unknown order.

    Example:
        >>> import jax.numpy as jnp
        >>> scores = jnp.array([[0.1, 0.5, 0.9, 0.2]])
        >>> tracklet_pull_in(scores, jnp.array([8, 5, 8, 5]))
        Array([[0.9, 0.5, 0.9, 0.5]], dtype=float32)
    """
    check_choice(order, "order", ORDERS)
    read = read_scores(scores, "scores")
    ids = check_ids(tracklet_ids, "tracklet_ids", size=read.shape[1])
    return pull_in_scores(read, group_tracklets(ids), order=order)


@functools.partial(jax.jit, static_argnames="order")
def pull_in_scores(
    scores: jax.Array, tracklets: Tracklets, *, order: str = "gallery"
) -> jax.Array:
    """`tracklet_pull_in` for grouped tracklets, one query at a time in blocks."""
    T, G = tracklets.counts.shape[0], scores.shape[1]
    index = jnp.arange(G, dtype=jnp.int32)

    def one_query(row: jax.Array) -> jax.Array:
        best = jax.ops.segment_max(row, tracklets.labels, T)  # [T]
        # The first of a tracklet's best images orders tracklets of equal score.
        leads = row == best[tracklets.labels]
        leader = jax.ops.segment_min(jnp.where(leads, index, G), tracklets.labels, T)
        if order == "score":
            key = -best[tracklets.labels], leader[tracklets.labels], -row
            down, *_, image = lax.sort((*key, index), num_keys=4)
            return jnp.zeros(G, jnp.float32).at[image].set(separate(-down, index))
        # Tracklets beyond the last one, which have no image, go last.
        best = jnp.where(tracklets.counts > 0, best, -jnp.inf)
        down, _, ranked = lax.sort(
            (-best, leader, jnp.arange(T, dtype=jnp.int32)), num_keys=2
        )
        apart = separate(-down, jnp.arange(T, dtype=jnp.int32))
        return jnp.zeros(T, jnp.float32).at[ranked].set(apart)[tracklets.labels]

    return lax.map(one_query, scores, batch_size=min(32, scores.shape[0]))


@jax.custom_jvp
def separate(falling: jax.Array, place: jax.Array) -> jax.Array:
    """Makes falling scores `[..., T]` strictly falling by the smallest float steps.

    `place` `[T]` or `[..., T]` int32 rises from the left by 1 or 0; entries of the same
    place keep a common value. Scores of -inf, which are masked, stay so.
    """
    # Floats as integers `level`, one step each: 0 for zero and for numbers too small to
    # be normal, 1 for the smallest normal number, -1 for that below zero.
    bits = lax.bitcast_convert_type(falling, jnp.int32)
    size = jnp.maximum((bits & 0x7FFFFFFF) - _TINY + 1, 0)
    level = jnp.where(bits < 0, -size, size)
    # level'_i = min(level_i, level'_(i-1) - 1) in closed form, with i the place.
    level = lax.cummin(level + place, axis=level.ndim - 1) - place
    bits = jnp.where(level == 0, 0, jnp.abs(level) + _TINY - 1)
    value = lax.bitcast_convert_type(bits, jnp.float32)
    value = jnp.where(level < 0, -value, value)
    return jnp.where(falling == -jnp.inf, falling, value)


@separate.defjvp
def _separate_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Integers have no derivative; the smallest steps leave that of the scores."""
    falling, moved = primals[0], tangents[0]
    slope = jnp.where(falling == -jnp.inf, jnp.zeros((), moved.dtype), moved)
    return separate(*primals), slope


@functools.partial(jax.jit, static_argnames=("top",))
def pull_in_ranking(
    ranking: Ranking, tracklets: Tracklets, *, top: int | None = None
) -> Ranking:
    """`tracklet_pull_in` of a ranking `[Q, K]`: the first K of the list, or `top`.

    In gallery order alone: the scores of images behind the first K are not known.

    The first K images are enough: their tracklets hold at least these K images, and all
    of them stand in front of any tracklet that first appears later. Images masked by
    -inf are followed by no others.
    """
    K = ranking.ids.shape[1]
    index = jnp.arange(K, dtype=jnp.int32)
    places = jnp.arange(K if top is None else top, dtype=jnp.int32)

    def one_query(ids: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        tracklet = tracklets.labels[ids]  # [K]
        # The place in the ranking at which each image's tracklet first appears.
        group, place = lax.sort((tracklet, index), num_keys=2)
        opens = jnp.concatenate([jnp.ones(1, bool), group[1:] != group[:-1]])
        leader = place[lax.cummax(jnp.where(opens, index, 0))]
        leader = jnp.zeros(K, jnp.int32).at[place].set(leader)
        masked = scores[leader] == -jnp.inf
        count = jnp.where(leader == index, tracklets.counts[tracklet], 0)
        count = jnp.where(masked, 1, count)
        end = jnp.cumsum(
            count, dtype=jnp.int32
        )  # [K], images up to and with that tracklet
        apart = separate(scores, jnp.cumsum(count > 0, dtype=jnp.int32) - 1)
        # As in `tracklet_neighbors`: which tracklet a place belongs to, and how far in.
        slot = jnp.searchsorted(end, places, side="right")
        offset = places - (end - count)[slot]
        pulled = tracklets.order[tracklets.starts[tracklet[slot]] + offset]
        return jnp.where(masked[slot], ids[slot], pulled), apart[slot]

    return Ranking(*jax.vmap(one_query)(*ranking))
