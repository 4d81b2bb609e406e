"""Work on rows that are split over the devices of a mesh, and search above all."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dex_jax._checks import is_concrete
from dex_jax.neighbors._blocks import repeat
from dex_jax.neighbors._duplicates import (
    Duplicates,
    find_duplicates,
    fingerprints,
    spread,
)
from dex_jax.neighbors._lists import NeighborLists, Neighbors, joined, no_lists
from dex_jax.neighbors._tiles import search_tiles


class RowShards(NamedTuple):
    """How rows are split: over which axes of which mesh."""

    mesh: Mesh | AbstractMesh
    axes: tuple[str, ...]

    @property
    def parts(self) -> int:
        """How many devices, or groups of them, hold other rows than the rest."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)


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


def on_parts(
    function: Callable[[Any, Any], Any],
    shards: RowShards | None,
    *,
    join: int | tuple[int | None, ...] | None,
) -> Callable[[Any, Any], Any]:
    """Lets every device work on its own rows.

    Args:
        function: of two trees of arrays: those split by rows, and what every device
            sees whole.
        shards: how the rows are split; None if they are not.
        join: axis along which the results are parts of one array, None if they are
            equal on all devices; several where a tuple is returned.

    Returns:
        The function of whole arrays.
    """
    if shards is None:
        return function
    split, whole = PartitionSpec(shards.axes), PartitionSpec()

    def out(axis: int | None) -> PartitionSpec:
        return whole if axis is None else PartitionSpec(*[None] * axis, shards.axes)

    return jax.shard_map(
        function,
        mesh=shards.mesh,
        in_specs=(split, whole),
        out_specs=tuple(map(out, join)) if isinstance(join, tuple) else out(join),
        check_vma=False,
    )


def part_start(shards: RowShards | None, rows: int) -> jax.Array:
    """Index of the first row of this device's part of so many rows."""
    number = jnp.int32(0) if shards is None else lax.axis_index(shards.axes)
    return number * rows


def gather_lists(lists: Neighbors, shards: RowShards | None, k: int) -> Neighbors:
    """The best `k` of what all devices found in their parts, in order of the parts."""
    if shards is None:
        return lists
    # [M, parts x K]: lower parts hold lower indices and stand first, so win ties.
    ids, scores = (lax.all_gather(x, shards.axes, axis=1, tiled=True) for x in lists)
    return joined(ids, scores, k)


def all_fingerprints(
    rows: jax.Array, shards: RowShards | None
) -> tuple[jax.Array, ...]:
    """Fingerprints `[N]` of all rows, whole on every device."""

    def part(own: jax.Array, _: None) -> tuple[jax.Array, ...]:
        words = fingerprints(own)
        if shards is None:
            return words
        return tuple(lax.all_gather(w, shards.axes, tiled=True) for w in words)

    return on_parts(part, shards, join=None)(rows, None)


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
    equal = find_duplicates(all_fingerprints(database, shards), valid)

    def local(
        part: tuple[jax.Array, jax.Array], whole: tuple[jax.Array, Duplicates]
    ) -> Neighbors:
        (rows, legal), (queries, equal) = part, whole
        N = rows.shape[0]
        found = search_tiles(
            queries,
            rows,
            legal,
            k=min(k, N),
            precision=precision,
            first=part_start(shards, N),
        )
        return spread(gather_lists(found.first(k), shards, k), equal, k)

    legal = equal.leads if valid is None else equal.leads & valid
    return on_parts(local, shards, join=None)((database, legal), (queries, equal))


class _Ring(NamedTuple):
    found: NeighborLists  # of this device's rows
    guest: jax.Array  # [n, D], the part that is visiting


@functools.partial(jax.jit, static_argnames=("shards", "k", "precision", "minimum"))
def self_search_shards(
    rows: jax.Array,
    *,
    shards: RowShards,
    k: int,
    precision: str,
    minimum: bool,
) -> NeighborLists:
    """Passes the parts around a ring; lists and minimum stay split like the rows."""
    parts = shards.parts
    equal = find_duplicates(all_fingerprints(rows, shards))

    def local(own: jax.Array, equal: Duplicates) -> NeighborLists:
        N = own.shape[0]
        me = lax.axis_index(shards.axes)
        ring = [((i + 1) % parts, i) for i in range(parts)]

        def visit(turn: jax.Array, state: _Ring) -> _Ring:
            first = (me + turn) % parts * N
            found = search_tiles(
                own,
                state.guest,
                lax.dynamic_slice_in_dim(equal.leads, first, N),
                k=min(k, N),
                precision=precision,
                first=first,
                minimum=minimum,
            )
            lists = merge(state.found.first(k), found.first(k), k=k)
            lowest = jnp.minimum(found.minimum, state.found.minimum)
            guest = lax.ppermute(state.guest, shards.axes, ring)
            return _Ring(NeighborLists(*lists, lowest), guest)

        found = repeat(parts, visit, _Ring(no_lists(N, k), own)).found
        return NeighborLists(*spread(found.first(k), equal, k), found.minimum)

    return on_parts(local, shards, join=0)(rows, equal)


@functools.partial(jax.jit, static_argnames=("k",))
def merge(a: Neighbors, b: Neighbors, *, k: int) -> Neighbors:
    """Merges two sorted lists of different rows into the best `k`, ties to low ids.

    For the parts of a ring, which arrive in any order; `joined` is faster where all
    rows of one list stand before those of the other.
    """
    ids = jnp.concatenate([a.ids, b.ids], axis=-1)
    scores = jnp.concatenate([a.scores, b.scores], axis=-1)
    # Two keys: falling score, then rising id.
    down, ids = lax.sort((-scores, ids), num_keys=2)
    return Neighbors(ids[..., :k], -down[..., :k])
