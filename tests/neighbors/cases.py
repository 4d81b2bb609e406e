"""Rows with equal ones among them, and what every list over them has to be.

Cosines of rows of whole numbers are exact, so their lists have one right answer,
`ranked`. Those of other rows are rounded: `check_lists` allows for that between rows
that differ, and for nothing between rows that are equal.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dex_jax.neighbors import Neighbors

# More than sums of D products are off by, at the widths used here.
ROUNDING = 2e-6


def ranked(queries, database, k, *, exclude_self=False):
    """Lists by sorting every exact product."""
    scores = queries @ database.T
    if exclude_self:
        np.fill_diagonal(scores, -np.inf)
    return best(scores, k)


def best(scores, k):
    """Ids and scores of the `k` best of each row, ties to the lower index."""
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def same(found, expected):
    """Equal bit by bit: ids and scores."""
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def whole(seed: int, rows: int, values: int, width: int = 4) -> np.ndarray:
    """Rows of whole numbers: the fewer values, the more ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(-values, values, size=(rows, width)).astype(np.float32)


def twins(seed: int, rows: int, distinct: int, width: int = 24) -> np.ndarray:
    """Rows of which each of `distinct` comes again and again, in random order.

    A number of theirs is zero, of either sign: that makes no difference.
    """
    rng = np.random.default_rng(seed)
    different = rng.normal(size=(distinct, width)).astype(np.float32)
    which = rng.permutation(np.arange(rows) % distinct)
    drawn = different[which]
    drawn[:, 0] = np.where(rng.random(rows) < 0.5, 0.0, -0.0)
    return drawn


def unit64(rows) -> np.ndarray:
    """Unit rows in double precision."""
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_lists(found: Neighbors, queries, database, legal=None) -> None:
    """Lists `[M, k]` are the best legal rows of the database `[N, D]`.

    Scores fall, and of equal scores the lower index stands first. Cosines are right but
    for rounding, and no row with a better one is missing. Equal rows have the same
    score, and of these none is left out for one of higher index.
    """
    ids, scores = np.asarray(found.ids), np.asarray(found.scores)
    legal = np.ones(len(database), bool) if legal is None else np.asarray(legal)
    cosine = unit64(queries) @ unit64(database).T
    cosine[:, ~legal] = -np.inf
    k = ids.shape[1]
    top = -np.partition(-cosine, range(k), axis=1)[:, :k]
    np.testing.assert_allclose(scores, top, atol=ROUNDING)
    listed = np.take_along_axis(cosine, ids, axis=1)
    np.testing.assert_allclose(listed, scores, atol=ROUNDING)
    falls, rises = np.diff(scores) < 0, np.diff(ids) > 0
    assert (falls | (np.diff(scores) == 0) & rises).all()

    groups, rank, members = _equal_rows(np.asarray(database), legal)
    group = groups[ids]
    together = group[:, :, None] == group[:, None]
    equal = scores[:, :, None] == scores[:, None]
    assert (equal | ~together).all()
    # The first so many of a group are there, and none of them twice.
    count = together.sum(axis=2)
    assert (rank[ids] < count).all()
    np.testing.assert_array_equal(np.diff(np.sort(ids, axis=1)) > 0, True)
    # What is missing of a group stands behind all that is there.
    missing = members[group, count]
    there = missing < len(database)
    last = scores[:, -1:]
    assert ((scores == last) & (missing > ids[:, -1:]) | ~there).all()


def _equal_rows(rows, legal):
    """The group of each row, its place there, and the members of each group."""
    rows = np.where(rows == 0, 0, rows)  # one zero
    groups = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    rank = np.zeros(len(rows), int)
    lists: list[list[int]] = [[] for _ in range(groups.max() + 1)]
    for row in np.flatnonzero(legal):
        rank[row] = len(lists[groups[row]])
        lists[groups[row]].append(row)
    longest = max(map(len, lists)) + 1
    members = np.full((len(lists), longest), len(rows))
    for group, some in enumerate(lists):
        members[group, : len(some)] = some
    return groups, rank, members


def split(
    rows,
    devices: int,
    kind: AxisType = AxisType.Auto,
    axes: Sequence[str] = ("a",),
) -> jax.Array:
    """Lays rows over the devices of a mesh of one or two axes."""
    shape = (devices,) if len(axes) == 1 else (2, devices // 2)
    grid = np.array(jax.devices()[:devices]).reshape(shape)
    mesh = Mesh(grid, tuple(axes), (kind,) * len(axes))
    place = NamedSharding(mesh, PartitionSpec(tuple(axes)))
    return jax.device_put(np.asarray(rows, np.float32), place)
