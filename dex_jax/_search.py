"""Tiled search kernels: products of blocks of rows, folded into running lists.

Two facts of XLA on the CPU set the form. `top_k` is one thread a call, so a block is
cut into parts whose calls run side by side. And a list that stands in front of new
candidates makes `top_k` cheap, since few of those beat it; standing in front, it also
wins ties, which is right as long as it holds the lower indices.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Numbers in the scores of one tile, 64 MiB.
_TILE = 2**24
# Queries multiplied at a time, and columns where the database does not fit a tile.
_ROWS = 1024
_COLUMNS = 16384
# Blocks of a set searched in itself: few, for short lists of merges, but small enough
# that the half of the diagonal which is computed twice does not count. Above some 2000
# rows a turned tile has more pages than the processor keeps addresses of: six times
# slower to turn.
_SELF_BLOCKS = 12
_SELF_ROWS = (1024, 2000)
_PARTS = 4


class Neighbors(NamedTuple):
    """Sorted neighbour lists, best first.

    Attributes:
        ids: `[..., K]` int32, row indices into the database.
        scores: `[..., K]` float32, their cosine similarities.
    """

    ids: jax.Array
    scores: jax.Array


def search_tiles(
    queries: jax.Array,
    database: jax.Array,
    *,
    k: int,
    valid: jax.Array | None = None,
    precision: str = "highest",
    offset: int | jax.Array = 0,
    tile: tuple[int, int] | None = None,
) -> tuple[Neighbors, jax.Array]:
    """Searches `database` `[N, D]` for queries `[M, D]`, in tiles of at most `tile`.

    `offset` is the index of the first row where the database is a part of a larger one.
    Returns the lists `[M, K]` and the smallest cosine of each query `[M]`; the compiler
    drops the latter where nobody reads it.
    """
    M, N = queries.shape[0], database.shape[0]
    rows, columns = tile or _tile(N)
    rows, columns = even(M, rows), even(N, columns)

    def block(number: jax.Array, carry: tuple[Neighbors, jax.Array]):
        found, minimum = carry
        start = jnp.minimum(number * rows, M - rows)
        parts = [
            lax.dynamic_slice_in_dim(queries, start + low, high - low)
            for low, high in _cuts(rows)
        ]

        def fold(j: jax.Array, carry: tuple[Neighbors, jax.Array]):
            best, least = carry
            first = jnp.minimum(j * columns, N - columns)
            target = lax.dynamic_slice_in_dim(database, first, columns)
            index = first + jnp.arange(columns)
            # The last block begins early: its first columns have been seen before.
            legal = index >= j * columns
            if valid is not None:
                legal &= lax.dynamic_slice_in_dim(valid, first, columns)
            scores, lowest = [], []
            for part in parts:
                cosine = jnp.matmul(part, target.T, precision=precision)
                lowest.append(cosine.min(axis=1))
                if valid is not None or columns < N:
                    cosine = jnp.where(legal[None], cosine, -jnp.inf)
                scores.append(cosine)
            best = _fold(best, scores, first + offset, keep=columns < N)
            return best, jnp.minimum(least, jnp.concatenate(lowest))

        fresh = empty_lists(rows, k), jnp.full(rows, jnp.inf)
        best, least = lax.fori_loop(0, -(-N // columns), fold, fresh)
        return put_lists(found, best, start), _lower(minimum, least, start)

    empty = empty_lists(M, k), jnp.full(M, jnp.inf)
    return lax.fori_loop(0, -(-M // rows), block, empty)


@functools.partial(jax.jit, static_argnames=("k", "precision", "block"))
def self_search_tiles(
    rows: jax.Array, *, k: int, precision: str = "highest", block: int | None = None
) -> tuple[Neighbors, jax.Array]:
    """Searches a set in itself, computing the cosine of each pair once.

    The upper triangle of tiles is walked row by row; a tile feeds the lists of its rows
    and, turned, those of its columns. Whatever reaches a list so arrives by rising
    index.
    """
    N = rows.shape[0]
    size = even(N, block or min(max(N // _SELF_BLOCKS, _SELF_ROWS[0]), _SELF_ROWS[1]))
    blocks = -(-N // size)
    step = jnp.arange(size)

    def band(i: jax.Array, carry: tuple[Neighbors, jax.Array]):
        start = jnp.minimum(i * size, N - size)
        own = lax.dynamic_slice_in_dim(rows, start, size)
        # The last block begins early: its first rows belong to the block before.
        fresh = start + step >= i * size

        def along(carry, scores: jax.Array, first: jax.Array, new: jax.Array):
            lists, minimum = carry
            parts = [
                jnp.where(new[None], scores[low:high], -jnp.inf)
                for low, high in _cuts(size)
            ]
            lists = _update(lists, parts, start, first, fresh)
            return lists, _lower(minimum, scores.min(axis=1), start)

        def tile(j: jax.Array, carry):
            first = jnp.minimum(j * size, N - size)
            other = lax.dynamic_slice_in_dim(rows, first, size)
            scores = jnp.matmul(own, other.T, precision=precision)
            new = first + step >= j * size
            lists, minimum = along(carry, scores, first, new)
            turned = [scores[:, low:high].T for low, high in _cuts(size)]
            lists = _update(lists, turned, first, start, new)
            return lists, _lower(minimum, scores.min(axis=0), first)

        diagonal = jnp.matmul(own, own.T, precision=precision)
        carry = along(carry, diagonal, start, fresh)
        return lax.fori_loop(i + 1, blocks, tile, carry)

    return lax.fori_loop(0, blocks, band, (empty_lists(N, k), jnp.full(N, jnp.inf)))


def top(scores: jax.Array, k: int) -> Neighbors:
    """The `k` best of each row of scores, ties to the lower index."""
    values, ids = lax.top_k(scores, k)
    # Without barriers a later slice of the result turns top_k into a full sort; one
    # barrier over both is more than the compiler can partition over a mesh.
    return Neighbors(lax.optimization_barrier(ids), lax.optimization_barrier(values))


def empty_lists(rows: int, k: int) -> Neighbors:
    """Lists that every candidate beats."""
    return Neighbors(jnp.zeros((rows, k), jnp.int32), jnp.full((rows, k), -jnp.inf))


def put_lists(lists: Neighbors, block: Neighbors, start: jax.Array) -> Neighbors:
    """Writes the lists of a block of rows that begins at `start`."""
    return Neighbors(
        lax.dynamic_update_slice_in_dim(lists.ids, block.ids, start, 0),
        lax.dynamic_update_slice_in_dim(lists.scores, block.scores, start, 0),
    )


def even(rows: int, most: int) -> int:
    """The size of equal blocks of at most `most` rows."""
    return -(-rows // -(-rows // most))


def _tile(columns: int) -> tuple[int, int]:
    """Rows and columns of a tile: the whole database, if enough rows fit beside it."""
    if columns * _ROWS // 2 <= _TILE:
        return min(_ROWS, _TILE // columns), columns
    return _ROWS, _COLUMNS


def _cuts(rows: int) -> list[tuple[int, int]]:
    parts = _PARTS if rows >= 32 * _PARTS else 1
    return [(rows * i // parts, rows * (i + 1) // parts) for i in range(parts)]


def _fold(
    best: Neighbors, parts: list[jax.Array], first: jax.Array, *, keep: bool = True
) -> Neighbors:
    """Folds the scores of columns from `first` on, cut by rows, into sorted lists."""
    k = best.ids.shape[1]
    folded = []
    for (low, high), scores in zip(_cuts(best.ids.shape[0]), parts, strict=True):
        if not keep:
            found = top(scores, k)
            folded.append(found._replace(ids=found.ids + first))
            continue
        found = top(jnp.concatenate([best.scores[low:high], scores], axis=1), k)
        old = jnp.minimum(found.ids, k - 1)
        old = jnp.take_along_axis(best.ids[low:high], old, axis=1)
        ids = jnp.where(found.ids < k, old, found.ids - k + first)
        folded.append(Neighbors(ids, found.scores))
    return jax.tree.map(lambda *pieces: jnp.concatenate(pieces), *folded)


def _update(
    lists: Neighbors,
    parts: list[jax.Array],
    start: jax.Array,
    first: jax.Array,
    changes: jax.Array,
) -> Neighbors:
    """Folds scores into the lists of the rows from `start` on that may change."""
    size = changes.shape[0]
    old = Neighbors(
        lax.dynamic_slice_in_dim(lists.ids, start, size),
        lax.dynamic_slice_in_dim(lists.scores, start, size),
    )
    new = _fold(old, parts, first)
    kept = jax.tree.map(lambda n, o: jnp.where(changes[:, None], n, o), new, old)
    return put_lists(lists, kept, start)


def _lower(minimum: jax.Array, found: jax.Array, start: jax.Array) -> jax.Array:
    old = lax.dynamic_slice_in_dim(minimum, start, found.shape[0])
    return lax.dynamic_update_slice_in_dim(minimum, jnp.minimum(old, found), start, 0)
