"""The CPU form of the search: two nested loops over tiles of cosines.

A tile is small enough to stay in the caches while its best scores are taken out. The
outer loop runs over blocks of one set and finishes the lists of one block after
another; the inner loop runs over all blocks of the other set. It serves three searches:

- queries in a database: outer the queries, inner the database, which gets no lists;
- a set in itself: the set is both, and the tiles on and right of the diagonal are
  enough, since a tile feeds the lists of its rows and those of its columns;
- two sets in each other: outer the database, inner the queries, both with lists.

Entries reach a list by rising index, so that ties need no second key. A mask says which
rows may stand in lists: of equal rows only the first (`_duplicates`), and no rows that
pad a set. Both kinds left out repeat another row, so they change no row's smallest
cosine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax.neighbors._bits import WORD
from dex_jax.neighbors._blocks import Blocks, divide, repeat
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._lists import (
    Lists,
    Tile,
    empty_lists,
    finished,
    fold,
    just_below,
)
from dex_jax.neighbors._products import cosines, square
from dex_jax.neighbors._rows import WIDE_COSINES, search_rows, select
from dex_jax.neighbors._selection import NeighborLists, Neighbors, no_lists

# A search of at most so many cosines is one tile, selected by `top_k`: lists that grow
# tile by tile take about a second longer to compile, which only larger searches win
# back. Those go in tiles of `_TILE` rows and columns: 16 MiB.
_ONE_TILE = 2**23
_TILE = (2048, 2048)
# Blocks of a set searched in itself, and least and most rows of one. Only tiles on the
# diagonal compute some pairs twice: with 18 blocks they are a tenth of all tiles.
_SELF_BLOCKS = 18
_SELF_ROWS = (1024, 4096)


@dataclass(frozen=True)
class _Side:
    """One of the two sets of rows of a walk.

    Attributes:
        rows: `[M, D]` unit rows.
        legal: `[M]` bool, which of them may stand in lists of the other side.
        first: the index that lists give row 0.
        blocks: how the rows are divided.
        k: entries of the lists of this side.
    """

    rows: jax.Array
    legal: jax.Array
    first: int | jax.Array
    blocks: Blocks
    k: int

    def tile(self, scores: jax.Array, i: jax.Array, *, axis: int) -> Tile:
        """Scores whose columns along `axis` are the rows of block `i`."""
        # The last block may begin early: rows that an earlier block had are not new.
        legal = self.blocks.take(self.legal, i) & self.blocks.fresh(i)
        return Tile(scores, self.first + self.blocks.start(i), legal, axis)


class _Walk(NamedTuple):
    """What a walk carries from one outer block to the next."""

    found: NeighborLists  # [M, k], lists of the outer rows; blocks to come are empty
    waiting: Lists | None  # [B, P, R], unfinished lists of B inner blocks of R rows


class _Band(NamedTuple):
    """What a walk carries along the inner blocks, for one outer block."""

    own: Lists  # [P, R], lists of the outer block
    waiting: Lists | None  # [B, P, R], as in `_Walk`


def search_tiles(
    queries: jax.Array,
    database: jax.Array,
    legal: jax.Array,
    *,
    k: int,
    first: int | jax.Array = 0,
    precision: str = "highest",
    minimum: bool = False,
    tile: tuple[int, int] | None = None,
) -> NeighborLists:
    """Searches the `legal` rows of `database` `[N, D]` for queries `[M, D]`.

    Args:
        queries: `[M, D]` unit rows.
        database: `[N, D]` unit rows.
        legal: `[N]` bool. Where fewer than `k` are legal, lists end in -inf.
        k: entries of a list.
        first: the index that lists give row 0 of the database.
        precision: of the products.
        minimum: also the smallest cosine of each query: a pass over all.
        tile: rows and columns of a tile, about.
    """
    M, N = queries.shape[0], database.shape[0]
    # In the wide form only a mesh comes here: its parts call this in either form.
    rows, columns = tile or ((M, N) if M * N <= _ONE_TILE else _TILE)
    if is_wide() or columns >= N:
        return search_rows(
            queries,
            database,
            legal,
            k=k,
            first=first,
            precision=precision,
            minimum=minimum,
            cosines_held=WIDE_COSINES if is_wide() else rows * N,
        )
    outer = _Side(queries, jnp.ones(M, bool), 0, divide(M, rows), k)
    inner = _Side(database, legal, first, divide(N, columns, multiple=WORD), 0)

    def begin(i: jax.Array, waiting: Lists | None) -> Lists:
        return empty_lists(
            outer.blocks.size, k, columns=inner.blocks.size, minimum=minimum
        )

    return _walk(outer, inner, None, begin, _end(k), precision).found


def self_search_tiles(
    rows: jax.Array,
    legal: jax.Array,
    *,
    k: int,
    precision: str = "highest",
    minimum: bool = False,
    block: int | None = None,
) -> NeighborLists:
    """Searches a set `[N, D]` in itself, computing the cosine of each pair once.

    Lists `[N, k]` hold `legal` rows alone, the row itself counted.
    """
    N = rows.shape[0]
    # Blocks are whole words of 32 rows, as marks are packed along rows and columns.
    most = block or min(max(N // _SELF_BLOCKS, _SELF_ROWS[0]), _SELF_ROWS[1])
    blocks = divide(N, most, multiple=WORD)
    if blocks.number == 1 or (block is None and N * N <= _ONE_TILE):
        return search_tiles(
            rows,
            rows,
            legal,
            k=k,
            precision=precision,
            minimum=minimum,
            tile=(N, N),
        )
    side = _Side(rows, legal, 0, blocks, k)
    waiting = _stacked(
        blocks.number,
        empty_lists(blocks.size, k, columns=blocks.size, minimum=minimum),
    )

    def begin(i: jax.Array, waiting: Lists | None) -> Lists:
        # As columns of earlier bands, the rows of block i have met all blocks above.
        return _get(waiting, i)

    return _walk(
        side,
        side,
        waiting,
        begin,
        _end(k),
        precision,
        triangle=True,
    ).found


class Joint(NamedTuple):
    """What `joint_search_tiles` finds."""

    queries: NeighborLists  # [M, K] over the legal rows of the database
    database: NeighborLists  # [N, K'] over the queries and the known lists


def joint_search_tiles(
    queries: jax.Array,
    database: jax.Array,
    known: Neighbors,
    legal: tuple[jax.Array, jax.Array],
    admit: Callable[[Neighbors, Neighbors], Neighbors],
    *,
    k: int,
    first: int | jax.Array,
    tile: tuple[int, int] | None = None,
) -> Joint:
    """Searches queries `[M, D]` in a database `[N, D]` and the database in the queries.

    Each cosine is computed once. The database's lists of itself are `known`: only
    queries above the last entry of such a list can enter it. They are few, so the
    second direction costs next to nothing.

    Args:
        queries: `[M, D]` unit rows, numbered from 0.
        database: `[N, D]` unit rows.
        known: lists `[N, L]` of each row of the database over its own set.
        legal: which queries `[M]` and which rows of the database `[N]` may stand in
            lists of the other side.
        admit: from the best queries `[R, K]` of some rows and their known lists to
            their lists over both.
        k: entries of a list.
        first: the index that lists give row 0 of the database.
        tile: queries and rows of the database in a tile, about.
    """
    known = Neighbors(known.ids[:, :k], known.scores[:, :k])
    M, N, L = queries.shape[0], database.shape[0], known.ids.shape[1]
    # Entries of the queries' lists, of the queries found for a row of the database, and
    # of that row's list over both.
    there, back, width = min(k, N), min(k, M), min(k, M + L)
    if is_wide() or (tile is None and M * N <= _ONE_TILE):
        found, theirs = _joint_rows(queries, database, legal, there, back)
        both = admit(theirs.first(back), known)
        return Joint(
            found._replace(ids=found.ids + first),
            NeighborLists(both.ids, both.scores, theirs.minimum),
        )
    rows, columns = tile or _TILE
    outer = _Side(database, legal[1], first, divide(N, columns, multiple=WORD), back)
    inner = _Side(queries, legal[0], 0, divide(M, rows, multiple=WORD), there)
    fresh = empty_lists(
        outer.blocks.size, back, columns=inner.blocks.size, minimum=True
    )
    waiting = empty_lists(
        inner.blocks.size, there, columns=outer.blocks.size, minimum=True
    )

    def begin(i: jax.Array, waiting: Lists | None) -> Lists:
        if k > L:  # a known list is not full: any query may enter
            return fresh
        # A query that equals the last entry stands before it, whatever the rounding.
        last = outer.blocks.take(known.scores[:, -1], i)
        return fresh._replace(last=just_below(last))

    def end(i: jax.Array, lists: Lists) -> NeighborLists:
        found = finished(lists, back)
        both = admit(found.first(back), outer.blocks.take(known, i))
        return NeighborLists(both.ids, both.scores, found.minimum)

    state = _walk(
        outer,
        inner,
        _stacked(inner.blocks.number, waiting),
        begin,
        end,
        "highest",
        width=width,
    )
    return Joint(_collected(state.waiting, inner.blocks, there), state.found)


def _joint_rows(
    queries: jax.Array,
    database: jax.Array,
    legal: tuple[jax.Array, jax.Array],
    there: int,
    back: int,
) -> tuple[NeighborLists, NeighborLists]:
    """Lists of the queries and of the database from whole rows of cosines.

    One product where it is small. On an accelerator a second one costs less than the
    lists that grow tile by tile, whose loops depend on data.
    """

    def selected(scores: jax.Array, legal: jax.Array, k: int) -> NeighborLists:
        return NeighborLists(*select(scores, legal, k), scores.min(axis=1))

    if queries.shape[0] * database.shape[0] > _ONE_TILE:
        return (
            search_rows(queries, database, legal[1], k=there, minimum=True),
            search_rows(database, queries, legal[0], k=back, minimum=True),
        )
    scores = cosines(queries, database)
    return selected(scores, legal[1], there), selected(scores.T, legal[0], back)


def _walk(
    outer: _Side,
    inner: _Side,
    waiting: Lists | None,
    begin: Callable[[jax.Array, Lists | None], Lists],
    end: Callable[[jax.Array, Lists], NeighborLists],
    precision: str,
    *,
    triangle: bool = False,
    width: int | None = None,
) -> _Walk:
    """Walks over all tiles, or with `triangle` over those on and right of the diagonal.

    Args:
        outer: the set of the outer loop; lists are finished one block after another.
        inner: the set of the inner loop.
        waiting: lists of all inner blocks, stacked; None if this side has none.
        begin: from `i` and `waiting` to the lists with which outer block `i` begins.
        end: from `i` and the lists of outer block `i` to what is written of them.
        precision: of the products.
        triangle: both sides are one set.
        width: entries that `end` returns; `outer.k` if None.

    Returns:
        The finished lists of the outer set and the unfinished ones of the inner set.
    """

    def band(i: jax.Array, walk: _Walk) -> _Walk:
        own_rows = outer.blocks.take(outer.rows, i)
        # The lists of this block are an array of their own: as a part of the stacked
        # ones, all of these would be copied with every write.
        own = begin(i, walk.waiting)
        if triangle:  # a block with itself feeds its rows alone
            scores = square(own_rows, precision)
            own = fold(own, outer.tile(scores, i, axis=1), k=outer.k)

        def one_tile(j: jax.Array, state: _Band) -> _Band:
            scores = cosines(own_rows, inner.blocks.take(inner.rows, j), precision)
            # [R, C]: columns are candidates of the outer rows, and rows of the inner.
            own = fold(state.own, inner.tile(scores, j, axis=1), k=outer.k)
            if state.waiting is None:
                return _Band(own, None)
            theirs = _get(state.waiting, j)
            theirs = fold(theirs, outer.tile(scores, i, axis=0), k=inner.k)
            return _Band(own, _set(state.waiting, theirs, j))

        start = i + 1 if triangle else jnp.int32(0)
        own, waiting = lax.fori_loop(
            start, jnp.int32(inner.blocks.number), one_tile, _Band(own, walk.waiting)
        )
        return _Walk(outer.blocks.put(walk.found, end(i, own), i), waiting)

    M, k = outer.blocks.rows, outer.k if width is None else width
    return repeat(outer.blocks.number, band, _Walk(no_lists(M, k), waiting))


def _end(k: int) -> Callable[[jax.Array, Lists], NeighborLists]:
    return lambda i, lists: finished(lists, k)


def _collected(lists: Lists | None, blocks: Blocks, k: int) -> NeighborLists:
    """Sorts the lists of stacked blocks and joins them to `[rows, k]`."""
    if lists is None:
        raise TypeError("this side of the walk has no lists")

    def one(i: jax.Array, found: NeighborLists) -> NeighborLists:
        return blocks.put(found, finished(_get(lists, i), k), i)

    return repeat(blocks.number, one, no_lists(blocks.rows, k))


def _stacked(blocks: int, lists: Lists) -> Lists:
    """Equal lists for each of so many blocks, `[blocks, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (blocks, *x.shape)), lists)


def _get(lists: Lists | None, i: jax.Array) -> Lists:
    if lists is None:
        raise TypeError("this side of the walk has no lists")
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), lists)


def _set(lists: Lists, block: Lists, i: jax.Array) -> Lists:
    return jax.tree.map(
        lambda whole, part: lax.dynamic_update_index_in_dim(whole, part, i, 0),
        lists,
        block,
    )
