"""Neighbour lists of the pool that k-reciprocal re-ranking works on.

The pool is the queries followed by the gallery, each row with neighbours among both.
Where the gallery's own lists exist, only products with queries are computed.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._duplicates import Duplicates, find_duplicates, spread
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._mesh import (
    RowShards,
    all_fingerprints,
    gather_lists,
    on_parts,
    part_start,
    row_shards,
)
from dex_jax.neighbors._rows import known_scores, search_rows
from dex_jax.neighbors._search import search_itself, self_search
from dex_jax.neighbors._selection import NeighborLists, Neighbors, joined
from dex_jax.neighbors._tiles import joint_search_tiles, self_search_tiles


def pool_lists(
    query: jax.Array,
    gallery: jax.Array,
    known: NeighborLists | None,
    *,
    width: int,
    queries: jax.Array | None = None,
    images: int | None = None,
) -> NeighborLists:
    """The lists of the pool `N = Q + G`, queries first, every row itself counted.

    Args:
        query: `[Q, D]` unit rows.
        gallery: `[G, D]` unit rows; may be split over a mesh.
        known: the gallery's own lists with their minima, at least `width` wide or as
            wide as there are images; None where there are none.
        width: entries of a list.
        queries: scalar int32, how many of the Q rows are queries; the rows behind them
            are padding (`check_queries`) and stand in no list. All are if None.
        images: how many of the G rows are images; the rows behind them are padding too
            (`SplitRows`). All are if None.

    Returns:
        Lists `[N, width]` and the smallest cosine of each row over the pool.
    """
    shards = row_shards(gallery)
    images = gallery.shape[0] if images is None else images
    if known is None and shards is None:
        return _whole_pool(query, gallery, queries, width=width, images=images)
    if known is None:
        # The pool's rows cannot be split evenly, but the gallery's are.
        known = self_search(gallery, k=min(width, images), size=images)
    return _joined_pool(
        query, gallery, known, queries, width=width, images=images, shards=shards
    )


@functools.partial(jax.jit, static_argnames=("width", "images"))
def _whole_pool(
    query: jax.Array,
    gallery: jax.Array,
    queries: jax.Array | None,
    *,
    width: int,
    images: int,
) -> NeighborLists:
    """One search of the pool in itself: each cosine is computed once."""
    valid = _valid(queries, query.shape[0], gallery.shape[0], images)
    pool = jnp.concatenate([query, gallery])
    return search_itself(pool, valid, k=width, minimum=True)


@functools.partial(jax.jit, static_argnames=("width", "images", "shards"))
def _joined_pool(
    query: jax.Array,
    gallery: jax.Array,
    known: NeighborLists,
    queries: jax.Array | None,
    *,
    width: int,
    images: int,
    shards: RowShards | None,
) -> NeighborLists:
    """Adds the queries to the gallery's known lists, and makes those of the queries."""
    Q, G = query.shape[0], gallery.shape[0]
    valid = _valid(queries, Q, G, images)
    # A query may equal a row of the gallery: duplicates are those of the whole pool.
    prints = zip(
        all_fingerprints(query, None), all_fingerprints(gallery, shards), strict=True
    )
    equal = find_duplicates(tuple(map(jnp.concatenate, prints)), valid)
    if is_wide() and shards is None:
        rows, columns = _joined_rows(query, gallery, known, equal, valid, width)
    else:
        rows, columns = _joined_tiles(
            query, gallery, known, equal, valid, width, shards
        )
    return NeighborLists(
        jnp.concatenate([rows.ids, columns.ids]),
        jnp.concatenate([rows.scores, columns.scores]),
        jnp.concatenate([rows.minimum, columns.minimum]),
    )


def _joined_rows(
    query: jax.Array,
    gallery: jax.Array,
    known: NeighborLists,
    equal: Duplicates,
    valid: jax.Array,
    width: int,
) -> tuple[NeighborLists, NeighborLists]:
    """The wide form: lists `[Q, width]` and `[G, width]`, each from its own products.

    Cosines of queries and gallery are computed twice, in large products; the form of
    CPUs computes them once.
    """
    Q = query.shape[0]
    pool = jnp.concatenate([query, gallery])
    rows = search_rows(query, pool, valid, k=width, source=equal.first, minimum=True)
    # No more than `width` queries can enter a list of the gallery.
    back = min(width, Q)
    found = search_rows(
        gallery, query, valid[:Q], k=back, source=equal.first[:Q], minimum=True
    )
    own = known.first(width)
    lists = _admitted(found.first(back), own, equal, Q, width)
    minimum = jnp.minimum(known.minimum, found.minimum)
    return rows, NeighborLists(lists.ids, lists.scores, minimum)


def _joined_tiles(
    query: jax.Array,
    gallery: jax.Array,
    known: NeighborLists,
    equal: Duplicates,
    valid: jax.Array,
    width: int,
    shards: RowShards | None,
) -> tuple[NeighborLists, NeighborLists]:
    """The form of CPUs, and of meshes: lists of both sides from the same products."""
    Q, G = query.shape[0], gallery.shape[0]
    # As candidates, the first of equal rows stands for the others; see `spread`.
    legal = valid & equal.leads

    def part(
        own: tuple[jax.Array, Neighbors, jax.Array],
        whole: tuple[jax.Array, jax.Array, Duplicates],
    ) -> tuple[NeighborLists, NeighborLists]:
        (rows, lists, count), (query, legal_queries, equal) = own, whole

        def admit(found: Neighbors, own: Neighbors) -> Neighbors:
            # Known lists hold all duplicates already, those of the queries not yet.
            found = spread(found, equal.before(Q), found.ids.shape[1])
            return _admitted(found, own, equal, Q, min(width, Q + own.ids.shape[1]))

        found = joint_search_tiles(
            query,
            rows,
            lists,
            (legal_queries, count),
            admit,
            k=width,
            first=Q + part_start(shards, rows.shape[0]),
        )
        # The queries' lists over this device's part become lists over the gallery.
        across = gather_lists(found.queries.first(width), shards, min(width, G))
        lowest = found.queries.minimum  # [Q]
        lowest = lowest if shards is None else lax.pmin(lowest, shards.axes)
        return NeighborLists(*across, lowest), found.database

    run = on_parts(part, shards, join=(None, 0))
    across, lists = run(
        (gallery, known.first(width), legal[Q:]), (query, legal[:Q], equal)
    )
    among = self_search_tiles(query, legal[:Q], k=min(Q, width), minimum=True)
    # Queries have the lower indices in the pool and stand first, so they win ties.
    found = joined(
        jnp.concatenate([among.ids, across.ids], axis=1),
        jnp.concatenate([among.scores, across.scores], axis=1),
        width,
    )
    # The smallest cosine is taken from the same products as the lists: from others it
    # might exceed the cosines in a list by rounding.
    rows = NeighborLists(
        *spread(found, equal, width), jnp.minimum(among.minimum, across.minimum)
    )
    minimum = jnp.minimum(known.minimum, lists.minimum)
    return rows, NeighborLists(lists.ids, lists.scores, minimum)


def _admitted(
    found: Neighbors, own: Neighbors, equal: Duplicates, ahead: int, width: int
) -> Neighbors:
    """Lists over the pool, from the best queries of some rows and their own lists.

    Args:
        found: `[R, K]`, the best queries of each row.
        own: `[R, L]`, lists over the gallery, numbered from 0.
        equal: duplicates in the pool.
        ahead: Q, which gallery rows add to their index in the pool.
        width: entries of the result `[R, width]`.
    """
    # The wide form has no branch that depends on data.
    if is_wide():
        found = known_scores(found, equal.first, own, ahead)
    else:
        found = lax.cond(
            equal.some,
            lambda found: known_scores(found, equal.first, own, ahead),
            lambda found: found,
            found,
        )
    # Queries have the lower indices in the pool and stand first, so they win ties.
    ids = jnp.concatenate([found.ids, own.ids + ahead], axis=1)
    scores = jnp.concatenate([found.scores, own.scores], axis=1)
    return joined(ids, scores, width)


def _valid(queries: jax.Array | None, ahead: int, rest: int, images: int) -> jax.Array:
    """`[ahead + rest]` bool, false for padding of queries and of images.

    That is the rows from `queries`, all if None, to `ahead`, and those behind `images`.
    """
    row = jnp.arange(ahead + rest, dtype=jnp.int32)
    asked = row < (ahead if queries is None else queries)
    return asked | ((row >= ahead) & (row < ahead + images))
