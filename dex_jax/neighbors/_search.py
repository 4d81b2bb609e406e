"""The public search, and the searches of unit rows that the package calls.

Arguments are checked here. The work is then done by tiles (`_tiles`), the form of CPUs,
by whole rows (`_rows`), the wide form, or by the parts of a mesh (`_mesh`).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from dex_jax._checks import (
    ArrayLike,
    Count,
    check_choice,
    check_count,
    check_flag,
    check_same_width,
    host_value,
    is_concrete,
    on_any_mesh,
    unit_rows,
    warn_user,
)
from dex_jax.neighbors._derivative import with_derivative
from dex_jax.neighbors._duplicates import find_duplicates, fingerprints, spread
from dex_jax.neighbors._form import is_wide
from dex_jax.neighbors._mesh import row_shards, search_shards, self_search_shards
from dex_jax.neighbors._padding import check_queries, first_rows
from dex_jax.neighbors._products import PRECISIONS
from dex_jax.neighbors._rows import search_rows
from dex_jax.neighbors._selection import NeighborLists, Neighbors
from dex_jax.neighbors._split import SplitRows, check_gallery, counted
from dex_jax.neighbors._tiles import search_tiles, self_search_tiles
from dex_jax.neighbors._units import unit_set


@on_any_mesh
def nearest_neighbors(
    queries: ArrayLike | SplitRows,
    database: ArrayLike | SplitRows,
    *,
    k: int,
    exclude_self: bool = False,
    precision: str = "highest",
) -> Neighbors:
    """Finds the `k` database rows of largest cosine similarity for each query.

    Rows of the database that are equal bit by bit get equal cosines, so that the one of
    lower index stands first: at every size, in every form and on every mesh. Cosines of
    different rows are sums of D products, rounded; two that differ by less than about
    1e-6 may stand in either order, and in another order where the shapes differ.

    CPUs and accelerators run different kernels, "cpu" and "wide", with the same
    neighbours and scores that differ by rounding; `form` or the environment variable
    `DEX_JAX_FORM` chooses one by hand.

    Scores can be differentiated in both sets, in forward and reverse mode: the ids are
    held fixed.

    Args:
        queries: `[M, D]`, real numbers, read as float32; finite, any row length but
            zero. Other numbers of queries reuse compiled programs: outside of `jit`
            and on one device rows are padded inside, to 1, 8, 32, 64, 128, 256, 384,
            512 and beyond that by an eighth at most.
        database: `[N, D]`, the same, not padded. Rows may be split over a mesh, by
            `jax.device_put` or by `split_rows`.
        k: neighbours wanted, at least 1, static; beyond what there is: all there is,
            and one warning.
        exclude_self: `queries` is the database, and no row is its own neighbour.
        precision: of the products: "highest" is full float32 everywhere. On
            accelerators "tf32x3" is three times TF32, as exact to 1e-6 and faster;
            "high" and "default" let them use coarser arithmetic. Rounding inputs to
            TF32 or bfloat16 moved cosines by up to 6e-5 or 4e-4.

    Returns:
        Neighbors: ids int32 and cosines float32 from -1 to 1 (up to rounding), each
        `[M, K]`, sorted by falling cosine; ties go to the lower index. On a mesh every
        device holds all lists, but those of a set searched in itself stay split.

    Raises:
        ValueError: rows that are not numbers `[N, D]`, hold NaN or infinity or are all
            zero (values are checked only outside of `jit`); different dimensions, `k`
            below 1, or `exclude_self` with two different sets.

    Example:
        >>> import jax.numpy as jnp
        >>> database = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> nearest_neighbors(database[:1], database, k=2).ids.tolist()
        [[0, 2]]
    """
    # A set searched in itself takes half the products: each serves both of its rows.
    itself = queries is database
    k = check_count(k, "k")
    exclude_self = check_flag(exclude_self, "exclude_self")
    check_choice(precision, "precision", PRECISIONS)
    database, size = check_gallery(database, "database")
    if itself or exclude_self:
        rows, count = (database, size) if itself else check_gallery(queries, "queries")
        check_same_width(rows, database, "queries", "database")
        if exclude_self and not (count == size and _same(rows, database, size)):
            raise ValueError(
                "exclude_self: queries must be the database itself, got other rows of "
                f"shape {(count, *rows.shape[1:])} for {(size, *database.shape[1:])}"
            )
        k = limit_k(k, size - int(exclude_self), "k")
        rows = unit_set(database)
        # Each row is in its own list, so one entry more is needed to leave it out.
        found = self_lists(
            rows, k=k + int(exclude_self), size=size, precision=precision
        )
        found = _without_self(found) if exclude_self else found
        return first_rows(found, size)
    read = check_gallery if isinstance(queries, SplitRows) else check_queries
    queries, count = read(queries, "queries")
    check_same_width(queries, database, "queries", "database")
    k = limit_k(k, size, "k")
    # Each side is scaled apart: of a query no equal row is asked for.
    rows = unit_rows(queries), unit_set(database)
    valid = counted(database, size)
    return first_rows(search(*rows, k=k, valid=valid, precision=precision), count)


def _same(a: jax.Array, b: jax.Array, size: int) -> bool:
    """Whether two sets share their first `size` rows; traced ones are not compared."""
    if a is b or not is_concrete(a, b):
        return True
    return bool(host_value(jnp.array_equal(a[:size], b[:size])))


@jax.jit
def _without_self(found: Neighbors) -> Neighbors:
    """Lists `[N, K]` without the row itself, or without their last entry: `[N, K - 1]`.

    A row is missing from its own list where K duplicates of lower index fill it.
    """
    ids, scores = found
    own = ids == jnp.arange(ids.shape[0], dtype=ids.dtype)[:, None]
    # From the row's own place on, each entry is the next one of the old list.
    moved = jnp.cumsum(own, axis=1)[:, :-1] > 0
    return Neighbors(
        jnp.where(moved, ids[:, 1:], ids[:, :-1]),
        jnp.where(moved, scores[:, 1:], scores[:, :-1]),
    )


def limit_k(k: int, size: int, name: str) -> int:
    """Returns `k`, or `size` with a warning that names both where `k` is more."""
    if k <= size:
        return k
    warn_user(f"{name}={k} is more than the {size} there are; using {size}")
    return size


def limit_count(count: Count, size: int, name: str) -> Count:
    """`limit_k` of a count, or of its maximum where it has one."""
    if count.value is None:
        return Count(limit_k(count.width, size, name))
    width = limit_k(count.width, size, f"{name}_max")
    # The value may be traced, so that what exceeds the width is cut without a warning.
    return Count(width, jnp.minimum(count.value, width))


def search(
    queries: jax.Array,
    database: jax.Array,
    *,
    k: int,
    valid: jax.Array | None = None,
    precision: str = "highest",
) -> Neighbors:
    """Finds the `k` nearest of `database` `[N, D]` for unit rows `queries` `[M, D]`.

    Rows that `valid` `[N]` leaves out come last, with the score -inf and any index. A
    database whose rows are split over a mesh is searched where it lies; every device
    then holds all lists.
    """
    shards = row_shards(database)
    rows = lax.stop_gradient((queries, database))
    if shards is None:
        found = _search(*rows, valid, k=k, precision=precision)
    else:
        found = search_shards(*rows, valid, shards=shards, k=k, precision=precision)
    scores = with_derivative(found.scores, found.ids, queries, database)
    return Neighbors(found.ids, scores)


@functools.partial(jax.jit, static_argnames=("k", "precision"))
def _search(
    queries: jax.Array,
    database: jax.Array,
    valid: jax.Array | None,
    *,
    k: int,
    precision: str,
) -> Neighbors:
    equal = find_duplicates(fingerprints(database), valid)
    valid = jnp.ones(database.shape[0], bool) if valid is None else valid
    if is_wide():
        # Each column is given the cosine of the first row that equals it: no branch.
        return search_rows(
            queries, database, valid, k=k, source=equal.first, precision=precision
        ).first(k)
    # Only the first of equal rows enters lists; `spread` inserts the others, if any.
    legal = valid & equal.leads
    found = search_tiles(queries, database, legal, k=k, precision=precision)
    return spread(found.first(k), equal, k)


def self_search(rows: jax.Array, *, k: int, size: int | None = None) -> NeighborLists:
    """Finds each unit row's `k` nearest in its own set `[N, D]`, itself counted.

    Of the rows the first `size` count, all if None; the others repeat the last one of
    these. Lists and the smallest cosine of each row are split over devices like the
    rows.
    """
    return _self_search(rows, size, k=k, precision="highest", minimum=True)


def self_lists(
    rows: jax.Array, *, k: int, size: int | None = None, precision: str = "highest"
) -> Neighbors:
    """The lists of `self_search` alone, which saves the pass for the minima."""
    return _self_search(rows, size, k=k, precision=precision, minimum=False).first(k)


def _self_search(
    rows: jax.Array, size: int | None, *, k: int, precision: str, minimum: bool
) -> NeighborLists:
    shards = row_shards(rows)
    fixed = lax.stop_gradient(rows)
    valid = None if size is None else counted(rows, size)
    if shards is None:
        found = search_itself(fixed, valid, k=k, precision=precision, minimum=minimum)
    else:
        found = self_search_shards(
            fixed, valid, shards=shards, k=k, precision=precision, minimum=minimum
        )
    # The minimum gets no derivative: k-reciprocal alone reads it, and refuses one.
    return found._replace(scores=with_derivative(found.scores, found.ids, rows, rows))


@functools.partial(jax.jit, static_argnames=("k", "precision", "minimum"))
def search_itself(
    rows: jax.Array,
    valid: jax.Array | None,
    *,
    k: int,
    precision: str = "highest",
    minimum: bool,
) -> NeighborLists:
    """Finds the `k` nearest `valid` rows of each unit row in a set on one device.

    Args:
        rows: `[N, D]` unit rows.
        valid: `[N]` bool, which rows may stand in lists; all if None. Each row that
            may not must repeat one that may, so that it changes no minimum.
        k: entries of a list.
        precision: of the products.
        minimum: also the smallest cosine of each row.
    """
    equal = find_duplicates(fingerprints(rows), valid)
    valid = jnp.ones(rows.shape[0], bool) if valid is None else valid
    # Duplicates are treated as in `_search`.
    if is_wide():
        return search_rows(
            rows,
            rows,
            valid,
            k=k,
            source=equal.first,
            precision=precision,
            minimum=minimum,
        )
    legal = valid & equal.leads
    found = self_search_tiles(rows, legal, k=k, precision=precision, minimum=minimum)
    return NeighborLists(*spread(found.first(k), equal, k), found.minimum)
