"""Search where the rows of the database are split over the devices of a mesh."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dex_jax._checks import is_concrete
from dex_jax._lists import Neighbors, no_neighbors, top
from dex_jax._search import search_tiles


class RowShards(NamedTuple):
    """How rows are split: over which axes of which mesh."""

    mesh: Mesh | AbstractMesh
    axes: tuple[str, ...]


def row_shards(array: jax.Array) -> RowShards | None:
    """Tells how the rows of a concrete array are split; None if they are not."""
    sharding = array.sharding if is_concrete(array) else None
    if not isinstance(sharding, NamedSharding) or not sharding.spec:
        return None
    axes = sharding.spec[0]
    axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
    if array.shape[0] == sharding.shard_shape(array.shape)[0]:
        return None
    return RowShards(sharding.mesh, axes)


@functools.partial(jax.jit, static_argnames=("shards", "k", "precision"))
def search_shards(
    queries: jax.Array,
    database: jax.Array,
    valid: jax.Array | None,
    *,
    shards: RowShards,
    k: int,
    precision: str,
) -> Neighbors:
    """Searches each part for all queries, then gathers and merges lists of `k`."""

    def local(queries: jax.Array, part: jax.Array, valid: jax.Array) -> Neighbors:
        N = part.shape[0]
        found, _ = search_tiles(
            queries,
            part,
            k=min(k, N),
            valid=valid,
            precision=precision,
            offset=lax.axis_index(shards.axes) * N,
        )
        # [M, parts x K]: lower parts hold lower indices and stand first, so win ties.
        ids, scores = (
            lax.all_gather(x, shards.axes, axis=1, tiled=True) for x in found
        )
        best = top(scores, k)
        return Neighbors(jnp.take_along_axis(ids, best.ids, axis=1), best.scores)

    split, whole = PartitionSpec(shards.axes), PartitionSpec()
    if valid is None:
        valid = jnp.ones(database.shape[0], bool)
    return jax.shard_map(
        local,
        mesh=shards.mesh,
        in_specs=(whole, split, split),
        out_specs=whole,
        check_vma=False,
    )(queries, database, valid)


@functools.partial(jax.jit, static_argnames=("shards", "k", "precision"))
def self_search_shards(
    rows: jax.Array, *, shards: RowShards, k: int, precision: str = "highest"
) -> tuple[Neighbors, jax.Array]:
    """Passes the parts around a ring; lists and minimum stay split like the rows."""
    parts = rows.shape[0] // _part_rows(rows, shards)

    def local(own: jax.Array) -> tuple[Neighbors, jax.Array]:
        N = own.shape[0]
        me = lax.axis_index(shards.axes)

        def visit(turn: jax.Array, carry):
            lists, minimum, guest = carry
            first = (me + turn) % parts * N
            found, least = search_tiles(
                own,
                guest,
                k=min(k, N),
                precision=precision,
                offset=first,
                minimum=True,
            )
            ring = [((i + 1) % parts, i) for i in range(parts)]
            return (
                merge(lists, found, k=k),
                jnp.minimum(minimum, least),
                lax.ppermute(guest, shards.axes, ring),
            )

        carry = (no_neighbors(N, k), jnp.full(N, jnp.inf), own)
        return lax.fori_loop(0, parts, visit, carry)[:2]

    split = PartitionSpec(shards.axes)
    return jax.shard_map(
        local, mesh=shards.mesh, in_specs=split, out_specs=split, check_vma=False
    )(rows)


def _part_rows(rows: jax.Array, shards: RowShards) -> int:
    sizes = [shards.mesh.shape[axis] for axis in shards.axes]
    return rows.shape[0] // functools.reduce(lambda a, b: a * b, sizes, 1)


@functools.partial(jax.jit, static_argnames=("k",))
def merge(a: Neighbors, b: Neighbors, *, k: int) -> Neighbors:
    """Merges two sorted lists of different rows into the best `k`, ties to low ids."""
    ids = jnp.concatenate([a.ids, b.ids], axis=-1)
    scores = jnp.concatenate([a.scores, b.scores], axis=-1)
    # Two keys: falling score, then rising id.
    down, ids = lax.sort((-scores, ids), num_keys=2)
    return Neighbors(ids[..., :k], -down[..., :k])
