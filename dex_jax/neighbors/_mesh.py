"""The search where rows are split over the devices of a mesh.

`on_parts` runs a function on each device's own rows. `search_shards` searches a split
database for queries that every device holds, `self_search_shards` a split set in
itself; neither gathers the rows on one device.
"""

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
from dex_jax.neighbors._selection import NeighborLists, Neighbors, joined, no_lists
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
    """How the rows of a concrete array are split; None if they are not, or traced."""
    sharding = array.sharding if is_concrete(array) else None
    if not isinstance(sharding, NamedSharding) or not sharding.spec:
        return None
    axes = sharding.spec[0]
    axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
    # Every device holds all rows: only columns are split, or the axis has one device.
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
        function: of two trees of arrays: those split by rows, of which it gets the
            device's own part, and those that every device gets whole.
        shards: how the rows are split; None if they are not.
        join: axis along which the results are parts of one array, None if they are
            equal on all devices; several where a tuple is returned.

    Returns:
        The function of the two trees of whole arrays; `function` if `shards` is None.
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
        # What has been gathered is equal on all devices, which the check cannot see.
        check_vma=False,
    )


def part_start(shards: RowShards | None, rows: int) -> jax.Array:
    """Index of the first row of this device's part of so many rows."""
    number = jnp.int32(0) if shards is None else lax.axis_index(shards.axes)
    return number * rows


def gather_lists(lists: Neighbors, shards: RowShards | None, k: int) -> Neighbors:
    """The best `k` of lists `[M, K]` that each device found in its part."""
    if shards is None:
        return lists
    # [M, parts x K]. Lower parts hold lower indices and stand first, so they win ties.
    ids, scores = (lax.all_gather(x, shards.axes, axis=1, tiled=True) for x in lists)
    return joined(ids, scores, k)


def all_fingerprints(
    rows: jax.Array, shards: RowShards | None
) -> tuple[jax.Array, ...]:
    """Fingerprints `[N]` of all rows, on every device: 16 bytes a row are gathered."""

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
    # Equal rows may lie on different devices, so they are looked for in the whole set.
    equal = find_duplicates(all_fingerprints(database, shards), valid)

    def local(
        part: tuple[jax.Array, jax.Array], whole: tuple[jax.Array, Duplicates]
    ) -> Neighbors:
        (rows, legal), (queries, equal) = part, whole
        N = rows.shape[0]  # of this device
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
    """What a device carries from one turn of the ring to the next."""

    found: NeighborLists  # [n, k], lists of this device's rows
    guest: jax.Array  # [n, D], the part that is here for this turn


@functools.partial(jax.jit, static_argnames=("shards", "k", "precision", "minimum"))
def self_search_shards(
    rows: jax.Array,
    valid: jax.Array | None,
    *,
    shards: RowShards,
    k: int,
    precision: str,
    minimum: bool,
) -> NeighborLists:
    """Passes the parts around a ring; lists and minimum stay split like the rows.

    A device holds its own part and one other at a time, never all N rows. Rows that
    `valid` `[N]` leaves out stand in no list.
    """
    parts = shards.parts
    equal = find_duplicates(all_fingerprints(rows, shards), valid)
    legal = equal.leads if valid is None else equal.leads & valid  # [N]

    def local(own: jax.Array, whole: tuple[Duplicates, jax.Array]) -> NeighborLists:
        equal, legal = whole
        N = own.shape[0]  # of this device
        me = lax.axis_index(shards.axes)
        # Pairs (from, to): each device hands its guest to the one before it.
        ring = [((i + 1) % parts, i) for i in range(parts)]

        def visit(turn: jax.Array, state: _Ring) -> _Ring:
            first = (me + turn) % parts * N  # index of the guest's first row
            found = search_tiles(
                own,
                state.guest,
                lax.dynamic_slice_in_dim(legal, first, N),
                k=min(k, N),
                precision=precision,
                first=first,
                minimum=minimum,
            )
            lists = merge(state.found.first(k), found.first(k), k=k)
            lowest = jnp.minimum(found.minimum, state.found.minimum)
            guest = lax.ppermute(state.guest, shards.axes, ring)
            return _Ring(NeighborLists(lists.ids, lists.scores, lowest), guest)

        found = repeat(parts, visit, _Ring(no_lists(N, k), own)).found
        return NeighborLists(*spread(found.first(k), equal, k), found.minimum)

    return on_parts(local, shards, join=0)(rows, (equal, legal))


@functools.partial(jax.jit, static_argnames=("k",))
def merge(a: Neighbors, b: Neighbors, *, k: int) -> Neighbors:
    """Merges lists `[..., K]` and `[..., K']` into the best `k`, ties to the lower id.

    For the parts of a ring, which do not arrive by rising index; `joined` is faster
    where all ids of one list are below those of the other.
    """
    ids = jnp.concatenate([a.ids, b.ids], axis=-1)
    scores = jnp.concatenate([a.scores, b.scores], axis=-1)
    # Two keys: falling score, then rising id.
    down, ids = lax.sort((-scores, ids), num_keys=2)
    return Neighbors(ids[..., :k], -down[..., :k])
