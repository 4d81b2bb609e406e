"""The search by whole rows of cosines: some queries, all of the database, one product.

This is the wide form, for accelerators, which want few large kernels. A CPU uses it for
small searches, whose best it selects by `top_k` too.
"""

import jax
import jax.numpy as jnp

from dex_jax.neighbors._blocks import divide, map_blocks, take_rows
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._products import cosines
from dex_jax.neighbors._selection import NeighborLists, Neighbors, top

# Cosines that the wide form holds at once: 1 GiB of float32. Rows of a product, at
# least, however long they are.
WIDE_COSINES = 2**28
_WIDE_ROWS = 128
# Columns that may form a group in `_two_stage`, which looks at the best of each first.
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128)


def search_rows(
    queries: jax.Array,
    database: jax.Array,
    legal: jax.Array,
    *,
    k: int,
    first: int | jax.Array = 0,
    source: jax.Array | None = None,
    precision: str = "highest",
    minimum: bool = False,
    cosines_held: int = WIDE_COSINES,
) -> NeighborLists:
    """Searches the `legal` rows of `database` `[N, D]` for queries `[M, D]`.

    Args:
        queries: `[M, D]` unit rows.
        database: `[N, D]` unit rows.
        legal: `[N]` bool. Where fewer than `k` are legal, lists end in -inf.
        k: entries of a list.
        first: the index that lists give row 0 of the database.
        source: `[N]` int32, the row whose cosines each row is given: the first of its
            duplicates, so that these tie exactly. Its own if None.
        precision: of the products.
        minimum: also the smallest cosine of each query.
        cosines_held: about so many are held at once.

    Returns:
        Lists `[M, k]`, and the smallest cosine `[M]`, infinity if not asked for.
    """
    M, N = queries.shape[0], database.shape[0]
    least = _WIDE_ROWS if is_wide() else 1
    blocks = divide(M, max(least, cosines_held // N))

    def some(i: jax.Array) -> NeighborLists:
        scores = cosines(blocks.take(queries, i), database, precision)
        nothing = jnp.full(blocks.size, jnp.inf, jnp.float32)
        lowest = scores.min(axis=1) if minimum else nothing
        best = select(scores, legal, k, source)
        return NeighborLists(best.ids + first, best.scores, lowest)

    if blocks.number == 1:
        return some(jnp.int32(0))
    return map_blocks(some, blocks)


def select(
    scores: jax.Array, legal: jax.Array, k: int, source: jax.Array | None = None
) -> Neighbors:
    """The `k` best legal columns of scores `[R, N]`, ties to the lower index.

    Column c has the score of column `source[c]`.
    """
    N = scores.shape[1]
    group = _group_size(N, k) if is_wide() else 1
    if group == 1:
        scores = scores if source is None else jnp.take(scores, source, axis=1)
        return top(jnp.where(legal[None], scores, -jnp.inf), k)
    return _two_stage(scores, legal, k, source, group)


def known_scores(
    queries: Neighbors, first: jax.Array, known: Neighbors, offset: int
) -> Neighbors:
    """Gives queries that equal a row of a known list the score that it has there.

    The two cosines are of the same vectors, but products of other shapes round
    differently, and duplicates must tie exactly.

    Args:
        queries: `[R, K]`, the best queries for some rows of a database.
        first: `[N]` int32, the lowest index of an equal row in the pool of queries and
            database.
        known: `[R, L]`, the lists of these rows over the database.
        offset: index of the database's first row in the pool.

    Returns:
        The queries `[R, K]`, not sorted anew.
    """
    mine = take_rows(first, queries.ids)[:, :, None]  # [R, K, 1]
    theirs = take_rows(first, known.ids + offset)[:, None]  # [R, 1, L]
    same = jnp.where(mine == theirs, known.scores[:, None], -jnp.inf).max(axis=2)
    there = (same > -jnp.inf) & (queries.scores > -jnp.inf)
    return Neighbors(queries.ids, jnp.where(there, same, queries.scores))


def _group_size(columns: int, k: int) -> int:
    """The power of two that leaves the fewest to select from: columns / g + k g.

    1, which is a single stage, where k is so large that two would save little.
    """
    _, group = min((columns // g + k * g, g) for g in _GROUPS)
    return group if 4 * k * group <= columns else 1


def _two_stage(
    scores: jax.Array,
    legal: jax.Array,
    k: int,
    source: jax.Array | None,
    group: int,
) -> Neighbors:
    """Selects `k` groups of columns by their best, then `k` columns of these groups.

    Exact, ties included: were a column among the best k and its group not, each of k
    groups would hold a column that stands before it. On a GPU the sort of a long row
    takes many kernels, that of up to 4,096 columns one.
    """
    R, N = scores.shape
    groups = -(-N // group)
    pad = groups * group - N
    legal = jnp.pad(legal, (0, pad))
    columns = jnp.arange(N, dtype=jnp.int32) if source is None else source
    columns = jnp.pad(columns, (0, pad))
    if source is not None:
        spread = jnp.take(scores, columns, axis=1, mode="clip")
    else:
        spread = jnp.pad(scores, ((0, 0), (0, pad)))
    spread = jnp.where(legal[None], spread, -jnp.inf)
    maxima = spread.reshape(R, groups, group).max(axis=2)  # [R, groups]
    # Candidates in order of their index, so that ties go to the lower one.
    chosen = jnp.sort(top(maxima, k).ids, axis=1)  # [R, k]
    place = jnp.arange(group, dtype=jnp.int32)
    ids = (chosen[:, :, None] * group + place[None, None]).reshape(R, k * group)
    row = jnp.arange(R, dtype=jnp.int32)[:, None]
    # The scores of the candidates [R, k group], read again from the products.
    some = scores.at[row, take_rows(columns, ids)].get(mode="promise_in_bounds")
    some = jnp.where(take_rows(legal, ids), some, -jnp.inf)
    best = top(some, k)
    return Neighbors(jnp.take_along_axis(ids, best.ids, axis=1), best.scores)
