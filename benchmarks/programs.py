"""The programs that `compiled.py` compiles, with arguments that have shapes alone."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clustered import Size, make


class Program(NamedTuple):
    """A jitted function and its arguments; arrays are `jax.ShapeDtypeStruct`s."""

    label: str
    function: jax.stages.Wrapped
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = {}


# The programs: public functions where that is enough. An entry that names a function
# that has gone is reported in the table.


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _rows(count: int, width: int) -> Any:
    return _shape((count, width), jnp.float32)


def _lists(count: int, k: int) -> Any:
    from dex_jax.neighbors import Neighbors

    ids, scores = jnp.int32, jnp.float32
    return jax.eval_shape(
        lambda: Neighbors(jnp.zeros((count, k), ids), jnp.zeros((count, k), scores))
    )


def _neighbor_lists(count: int, k: int) -> Any:
    from dex_jax.neighbors import NeighborLists

    lists = _lists(count, k)
    return NeighborLists(lists.ids, lists.scores, _shape((count,), jnp.float32))


def _both(size: Size) -> tuple[Any, Any]:
    return _rows(size.queries, size.width), _rows(size.gallery, size.width)


def _search(size: Size) -> list[Program]:
    """The programs of `nearest_neighbors`: rows are scaled first, then searched."""
    from dex_jax.neighbors._pool import pool_lists
    from dex_jax.neighbors._search import _search as search
    from dex_jax.neighbors._search import search_itself
    from dex_jax.neighbors._units import unit_set

    pool = _rows(size.queries + size.gallery, size.width)

    def joined(query: jax.Array, gallery: jax.Array, known: Any) -> Any:
        return pool_lists(query, gallery, known, width=61)

    known = _neighbor_lists(size.gallery, 61)
    options = {"k": 100, "precision": "highest"}
    return [
        Program("rows scaled", unit_set, (pool,)),
        Program("search, k 100", search, (*_both(size), None), options),
        Program(
            "pool in itself, k 61",
            search_itself,
            (pool, None),
            {"k": 61, "minimum": True},
        ),
        Program(
            "pool from the gallery's lists", jax.jit(joined), (*_both(size), known)
        ),
    ]


def _expand_steps(size: Size) -> list[Program]:
    from dex_jax.rerank import alpha_query_expansion, database_augmentation

    gallery = _rows(size.gallery, size.width)
    return [
        Program("alpha-QE", jax.jit(alpha_query_expansion), _both(size)),
        Program("DBA, k 10, lists made", jax.jit(database_augmentation), (gallery,)),
    ]


def _k_reciprocal(size: Size) -> list[Program]:
    """The programs of 60/30 beside the pool's lists, in sizes that such data need."""
    from dex_jax.rerank._k_reciprocal_jaccard import query_support
    from dex_jax.rerank._k_reciprocal_sets import Encoding, Members, encode, expand

    Q, N = size.queries, size.queries + size.gallery
    ids = _lists(N, 61).ids
    flags = _shape((N, 61), bool)
    extra = _shape((N, _EXTRA), jnp.int32)
    members = Members(flags, extra, _shape((), jnp.int32))
    encoding = Encoding(*_lists(N, 61 + _EXTRA))
    lists = _lists(Q, 30).ids
    return [
        Program("expand", expand, (ids,), {"half": 30, "extra": _EXTRA}),
        Program(
            "encode",
            encode,
            (_rows(N, size.width), _neighbor_lists(N, 61), members),
        ),
        Program("support", query_support, (encoding, lists), {"size": _SUPPORT}),
        Program("Jaccard and scores", *_jaccard(size)),
    ]


def _jaccard(size: Size) -> tuple[Any, tuple[Any, ...]]:
    from dex_jax.rerank._k_reciprocal import _Compare, _Own, _Whole
    from dex_jax.rerank._k_reciprocal_jaccard import Compared, Support
    from dex_jax.rerank._k_reciprocal_sets import Encoding
    from dex_jax.rerank._scan import Scan, best_scores

    Q, G = size.queries, size.gallery
    query, gallery = _both(size)
    number, support = _shape((), jnp.int32), _lists(Q, _SUPPORT)
    whole = _Whole(
        query,
        _shape((Q,), jnp.float32),
        Compared(
            Encoding(*_lists(Q + G, 61 + _EXTRA)),
            Support(support.ids, support.scores, number),
            None,
            number,
        ),
        None,
        _shape((), jnp.float32),
    )
    own = _Own(gallery, _lists(G, 30).ids)
    scan = Scan(own, whole, _Compare(Q + G), (Q, G), G, "gallery")
    return jax.jit(functools.partial(best_scores, top=100)), (scan,)


def _diffusion(size: Size) -> list[Program]:
    from dex_jax.rerank import diffusion

    return [
        Program(
            f"diffusion, {solver}, lists made",
            jax.jit(functools.partial(diffusion, solver=solver)),
            _both(size),
        )
        for solver in ("power", "cg")
    ]


def jaccard_trips(size: Size) -> str:
    """Counts on clustered data how often the loops of the Jaccard turn, 60/30."""
    from dex_jax.neighbors import form
    from dex_jax.neighbors._blocks import divide
    from dex_jax.rerank import _k_reciprocal_jaccard as jaccard
    from dex_jax.rerank._embeddings import read_pair
    from dex_jax.rerank._k_reciprocal import read_options, with_sizes

    embeddings = make(size)
    pair = read_pair(embeddings.query, embeddings.gallery)
    with form("cpu"):  # the same sets, sooner
        options = read_options(60, 30, 0.5, None, None)
        scan = with_sizes(pair, None, options, lambda scan: scan)
    used = np.sort(np.asarray(scan.whole.found.support.weights > 0).sum(axis=1))
    with form("wide"):
        tiles = divide(size.gallery, jaccard.tile_size(size.queries + size.gallery))
        queries = divide(len(used), jaccard._WIDE_QUERIES)
    starts = [
        min(i * queries.size, queries.rows - queries.size)
        for i in range(queries.number)
    ]
    trips = sum(
        -(-used[s : s + queries.size].max() // jaccard._WIDE_TRIP) for s in starts
    )
    return (
        f"Jaccard, 60/30, clustered data: {trips * tiles.number} trips in "
        f"{queries.number * tiles.number} loops; support mean {used.mean():.0f}, "
        f"most {used.max()}"
    )


# Slots of a row beyond its list, and of a query's mean encoding, on such data.
_EXTRA, _SUPPORT = 112, 1_792

PROGRAMS: dict[str, Callable[[Size], list[Program]]] = {
    "search": _search,
    "expand_steps": _expand_steps,
    "k_reciprocal": _k_reciprocal,
    "diffusion": _diffusion,
}
