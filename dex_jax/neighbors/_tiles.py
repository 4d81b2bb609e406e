"""Tiled search kernels: products of blocks of rows, folded into running lists."""

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._lists import (
    WORD,
    Lists,
    Neighbors,
    empty_lists,
    finished,
    fold,
    joined,
    just_below,
    no_neighbors,
    top,
)

# Up to so many cosines are one tile: lists folded tile by tile compile longer, which is
# won back only over many. Larger searches go in tiles of `_TILE` queries and columns.
_ONE_TILE = 2**23
_TILE = (2048, 2048)
# Blocks of a set searched in itself: enough that what of the diagonal is computed twice
# does not count.
_SELF_BLOCKS = 18
_SELF_ROWS = (1024, 4096)
# Strips in which a block is multiplied with itself: more would multiply less and copy
# more.
_STRIPS = 4


def search_tiles(
    queries: jax.Array,
    database: jax.Array,
    *,
    k: int,
    valid: jax.Array | None = None,
    precision: str = "highest",
    offset: int | jax.Array = 0,
    tile: tuple[int, int] | None = None,
    minimum: bool = False,
) -> tuple[Neighbors, jax.Array]:
    """Searches `database` `[N, D]` for queries `[M, D]`, in tiles of about `tile`.

    Rows that `valid` `[N]` leaves out come last, with the score -inf and any index.
    `offset` is the index of the first row where the database is a part of a larger one.
    Returns the lists `[M, K]` and the smallest cosine of each query `[M]`, infinity
    unless `minimum` asks for it: that takes a pass over all cosines.
    """
    M, N = queries.shape[0], database.shape[0]
    rows, columns = tile or ((M, N) if M * N <= _ONE_TILE else _TILE)
    rows, columns = even(M, rows), _whole(even(N, columns), N)

    def lower(least: jax.Array, scores: jax.Array) -> jax.Array:
        return jnp.minimum(least, scores.min(axis=1)) if minimum else least

    def block(number: jax.Array, carry: tuple[Neighbors, jax.Array]):
        found, lowest = carry
        start = jnp.minimum(number * rows, M - rows)
        own = lax.dynamic_slice_in_dim(queries, start, rows)

        def along(j: jax.Array, carry: tuple[Lists, jax.Array]):
            lists, least = carry
            begin = jnp.minimum(j * columns, N - columns)
            target = lax.dynamic_slice_in_dim(database, begin, columns)
            scores = jnp.matmul(own, target.T, precision=precision)
            least = lower(least, scores)
            # The last block begins early: its first columns have been seen before.
            legal = begin + jnp.arange(columns) >= j * columns
            if valid is not None:
                legal &= lax.dynamic_slice_in_dim(valid, begin, columns)
            lists = fold(lists, scores, k=k, first=begin + offset, legal=legal)
            return lists, least

        if columns == N:
            scores = jnp.matmul(own, database.T, precision=precision)
            least = lower(jnp.full(rows, jnp.inf), scores)
            if valid is not None:
                scores = jnp.where(valid[None], scores, -jnp.inf)
            best = top(scores, k)
            best = best._replace(ids=best.ids + offset)
        else:
            fresh = empty_lists(rows, k, columns=columns), jnp.full(rows, jnp.inf)
            lists, least = lax.fori_loop(0, -(-N // columns), along, fresh)
            best = finished(lists, k)
        lowest = lax.dynamic_update_slice_in_dim(lowest, least, start, 0)
        return put_lists(found, best, start), lowest

    first = no_neighbors(M, k), jnp.full(M, jnp.inf)
    return lax.fori_loop(0, -(-M // rows), block, first)


def self_search_tiles(
    rows: jax.Array,
    *,
    k: int,
    precision: str = "highest",
    block: int | None = None,
    minimum: bool = False,
) -> tuple[Neighbors, jax.Array]:
    """Searches a set in itself, computing the cosine of each pair once.

    The upper triangle of tiles is walked row by row; a tile feeds the lists of its rows
    and those of its columns. Whatever reaches a list so arrives by rising index.
    Returns the lists `[N, K]` and the smallest cosine of each row `[N]`, as
    `search_tiles` does.
    """
    N = rows.shape[0]
    if block is None and N * N <= _ONE_TILE:
        return search_tiles(rows, rows, k=k, precision=precision, minimum=minimum)
    most = block or min(max(N // _SELF_BLOCKS, _SELF_ROWS[0]), _SELF_ROWS[1])
    size = _whole(even(N, most), N)
    blocks = -(-N // size)
    if blocks == 1:
        return search_tiles(rows, rows, k=k, precision=precision, minimum=minimum)

    def begin(number: jax.Array) -> jax.Array:
        # The last block begins early: it shares its first rows with the one before.
        return jnp.minimum(number * size, N - size)

    def take(number: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(rows, begin(number), size)

    def fresh(number: jax.Array) -> jax.Array:
        return begin(number) + jnp.arange(size) >= number * size

    def band(i: jax.Array, carry):
        # Lists are worked on apart from the others: as one array they would be copied.
        own, (lists, lowest) = take(i), carry

        def tile(j: jax.Array, carry):
            mine, lists, lowest = carry
            scores = jnp.matmul(own, take(j).T, precision=precision)
            mine = fold(mine, scores, k=k, first=begin(j), legal=fresh(j))
            theirs = fold(
                _get(lists, j), scores, k=k, first=begin(i), legal=fresh(i), turned=True
            )
            if minimum:
                lowest = lowest.at[i].min(scores.min(axis=1))
                lowest = lowest.at[j].min(scores.min(axis=0))
            return mine, _set(lists, theirs, j), lowest

        # The diagonal feeds its rows alone.
        scores = square(own, precision)
        mine = fold(_get(lists, i), scores, k=k, first=begin(i), legal=fresh(i))
        if minimum:
            lowest = lowest.at[i].min(scores.min(axis=1))
        mine, lists, lowest = lax.fori_loop(i + 1, blocks, tile, (mine, lists, lowest))
        return _set(lists, mine, i), lowest

    carry = (
        _stacked(blocks, empty_lists(size, k, columns=size)),
        jnp.full((blocks, size), jnp.inf),
    )
    lists, lowest = lax.fori_loop(0, blocks, band, carry)
    return _collected(lists, lowest, N, k)


def joint_search_tiles(
    queries: jax.Array,
    database: jax.Array,
    known: Neighbors,
    *,
    k: int,
    offset: int | jax.Array = 0,
    tile: tuple[int, int] | None = None,
) -> tuple[tuple[Neighbors, jax.Array], tuple[Neighbors, jax.Array]]:
    """Lets queries `[M, D]` and a database `[N, D]` into each other's lists.

    Each cosine is computed once. The database's `known` lists `[N, L]` of itself take
    in only queries that are better than their last entry, hardly any of them, which
    makes that direction cost next to nothing. Indices are those of a pool of the
    queries followed by the database, of which `offset` rows stand before these.
    Returns the queries' lists `[M, K]` over the database alone and the smallest cosine
    of each query `[M]`, then the database's lists `[N, K']` over the queries and the
    `known` ones, and the smallest cosine of each of its rows with a query `[N]`.
    """
    known = Neighbors(known.ids[:, :k], known.scores[:, :k])
    M, N, L = queries.shape[0], database.shape[0], known.ids.shape[1]
    there, back, width = min(k, N), min(k, M), min(k, M + L)
    ahead = M + offset

    def with_known(found: Neighbors, own: Neighbors) -> Neighbors:
        # Queries stand first in the pool, so of equals they come first.
        ids = jnp.concatenate([found.ids, own.ids + M], axis=1)
        scores = jnp.concatenate([found.scores, own.scores], axis=1)
        return joined(ids, scores, width)

    if tile is None and M * N <= _ONE_TILE:
        scores = jnp.matmul(queries, database.T, precision="highest")
        found = top(scores, there)
        found = found._replace(ids=found.ids + ahead)
        admitted = with_known(top(scores.T, back), known)
        return (found, scores.min(axis=1)), (admitted, scores.min(axis=0))
    rows, columns = tile or _TILE
    rows, columns = _whole(even(M, rows), M), _whole(even(N, columns), N)

    def along(j: jax.Array, carry):
        begin = jnp.minimum(j * columns, N - columns)
        target = lax.dynamic_slice_in_dim(database, begin, columns)
        own = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, columns), known)
        # The last blocks begin early: what they share has been seen before.
        legal = begin + jnp.arange(columns) >= j * columns

        def block(i: jax.Array, carry):
            lists, lowest, theirs, low = carry
            start = jnp.minimum(i * rows, M - rows)
            some = lax.dynamic_slice_in_dim(queries, start, rows)
            scores = jnp.matmul(some, target.T, precision="highest")
            mine = fold(
                _get(lists, i), scores, k=there, first=begin + ahead, legal=legal
            )
            fresh = start + jnp.arange(rows) >= i * rows
            theirs = fold(theirs, scores, k=back, first=start, legal=fresh, turned=True)
            lowest = lowest.at[i].min(scores.min(axis=1))
            low = jnp.minimum(low, scores.min(axis=0))
            return _set(lists, mine, i), lowest, theirs, low

        lists, lowest, admitted, lowest_own = carry
        theirs = empty_lists(columns, back, columns=rows)
        if k == L:
            # Just below: a query that equals the last entry stands before it.
            theirs = theirs._replace(last=just_below(own.scores[:, -1]))
        carry = lists, lowest, theirs, jnp.full(columns, jnp.inf)
        lists, lowest, theirs, low = lax.fori_loop(0, -(-M // rows), block, carry)
        best = with_known(finished(theirs, back), own)
        admitted = put_lists(admitted, best, begin)
        lowest_own = lax.dynamic_update_slice_in_dim(lowest_own, low, begin, 0)
        return lists, lowest, admitted, lowest_own

    blocks = -(-M // rows)
    carry = (
        _stacked(blocks, empty_lists(rows, there, columns=columns)),
        jnp.full((blocks, rows), jnp.inf),
        no_neighbors(N, width),
        jnp.full(N, jnp.inf),
    )
    lists, lowest, admitted, lowest_own = lax.fori_loop(
        0, -(-N // columns), along, carry
    )
    return _collected(lists, lowest, M, there), (admitted, lowest_own)


def square(rows: jax.Array, precision: str) -> jax.Array:
    """Cosines of a block with itself `[R, R]`, most of them computed once."""
    R = rows.shape[0]
    size = -(-R // _STRIPS)
    scores = jnp.zeros((R, R), rows.dtype)
    for start in range(0, R, size):
        end = min(start + size, R)
        strip = jnp.matmul(rows[start:end], rows[start:].T, precision=precision)
        scores = lax.dynamic_update_slice(scores, strip, (start, start))
        mirrored = strip[:, end - start :].T
        scores = lax.dynamic_update_slice(scores, mirrored, (end, start))
    return scores


def _stacked(blocks: int, lists: Lists) -> Lists:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (blocks, *x.shape)), lists)


def _collected(
    lists: Lists, lowest: jax.Array, rows: int, k: int
) -> tuple[Neighbors, jax.Array]:
    """Sorts the lists of stacked blocks, of which the last begins early."""
    blocks, size = lowest.shape

    def gather(number: jax.Array, carry: tuple[Neighbors, jax.Array]):
        found, least = carry
        start = jnp.minimum(number * size, rows - size)
        least = lax.dynamic_update_slice_in_dim(least, lowest[number], start, 0)
        return put_lists(found, finished(_get(lists, number), k), start), least

    first = no_neighbors(rows, k), jnp.full(rows, jnp.inf)
    return lax.fori_loop(0, blocks, gather, first)


def _get(lists: Lists, number: jax.Array) -> Lists:
    return jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, number, keepdims=False), lists
    )


def _set(lists: Lists, block: Lists, number: jax.Array) -> Lists:
    return jax.tree.map(
        lambda whole, part: lax.dynamic_update_index_in_dim(whole, part, number, 0),
        lists,
        block,
    )


def put_lists(lists: Neighbors, block: Neighbors, start: jax.Array) -> Neighbors:
    """Writes the lists of a block of rows that begins at `start`."""
    return Neighbors(
        lax.dynamic_update_slice_in_dim(lists.ids, block.ids, start, 0),
        lax.dynamic_update_slice_in_dim(lists.scores, block.scores, start, 0),
    )


def even(rows: int, most: int) -> int:
    """The size of equal blocks of at most `most` rows."""
    return -(-rows // -(-rows // most))


def _whole(rows: int, most: int) -> int:
    """Rounds a block's rows up to whole words of marks, if it then still fits."""
    return min(-(-rows // WORD) * WORD, most)
