"""The parts of a partition network: layout, cuts, and the descriptor they make.

A branch `(channel, height, width)` cuts its feature map into that many pieces along
each axis; every piece is a local part, and the whole map is the branch's global part
(paper, section 3.1; decisions in the docstring of `dex_jax.models.build`).
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks import check_count
from dex_jax.models._layers import generalized_mean, largest

Cuts = tuple[int, int, int]

PAPER: tuple[Cuts, ...] = ((2, 3, 1), (2, 1, 1), (2, 1, 3))


@dataclass(frozen=True)
class Layout:
    """Which parts there are, in the order of the embeddings' axis P.

    All local parts come first, branch after branch (channel, then height, then width
    running fastest), then one global part of each branch.

    Example:
        >>> layout = Layout(((2, 3, 1), (2, 1, 1), (2, 1, 3)))
        >>> layout.num_local, layout.num_global, layout.num_parts
        (14, 3, 17)
    """

    branches: tuple[Cuts, ...]

    @property
    def num_local(self) -> int:
        """Number of local parts."""
        return sum(int(np.prod(cuts)) for cuts in self.branches)

    @property
    def num_global(self) -> int:
        """Number of global parts: one a branch."""
        return len(self.branches)

    @property
    def num_parts(self) -> int:
        """P, the number of parts."""
        return self.num_local + self.num_global

    def widths(self, channels: int) -> tuple[int, ...]:
        """Number of input channels of every part, `[P]`.

        Raises:
            ValueError: a branch whose channel cuts do not divide `channels`.
        """
        widths = []
        for branch, cuts in enumerate(self.branches):
            if channels % cuts[0]:
                raise ValueError(
                    f"parts: branch {branch + 1} {cuts} cuts {channels} channels into "
                    f"{cuts[0]} equal pieces, which is impossible; choose a divisor of "
                    f"{channels}"
                )
            widths += [channels // cuts[0]] * int(np.prod(cuts))
        return (*widths, *[channels] * self.num_global)


def layout(
    parts: tuple[Cuts, ...] = PAPER, *, expected_parts: int | None = None
) -> Layout:
    """Reads a partition, one `(channel, height, width)` a branch.

    Args:
        parts: branches; every number at least 1. The paper's network has 17 parts:
            `((2, 3, 1), (2, 1, 1), (2, 1, 3))` gives 14 local and 3 global ones.
        expected_parts: the number of parts this must give, None for any.

    Returns:
        The layout, hashable.

    Raises:
        ValueError: not triples of positive whole numbers, or another number of parts.

    Example:
        >>> layout(((1, 1, 1), (1, 2, 1), (1, 3, 1))).num_parts
        9
    """
    try:
        branches = tuple(tuple(cuts) for cuts in parts)
    except TypeError:
        branches = ()
    if not branches or any(len(cuts) != 3 for cuts in branches):
        raise ValueError(
            f"parts: expected one (channel, height, width) a branch, got {parts!r}"
        )
    checked = []
    for index, cuts in enumerate(branches):
        c, h, w = (check_count(n, f"parts, branch {index + 1}") for n in cuts)
        checked.append((c, h, w))
    result = Layout(tuple(checked))
    if expected_parts is not None and result.num_parts != expected_parts:
        raise ValueError(
            f"parts: {parts!r} gives {result.num_parts} parts ({result.num_local} "
            f"local, {result.num_global} global), expected_parts is {expected_parts}"
        )
    return result


def bounds(size: int, pieces: int) -> list[tuple[int, int]]:
    """Start and end of every piece of an axis, as `numpy.array_split` cuts it.

    Example:
        >>> bounds(7, 3)
        [(0, 3), (3, 5), (5, 7)]
    """
    ends = [piece[-1] + 1 for piece in np.array_split(np.arange(size), pieces)]
    return [(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def pool(
    feature_map: jax.Array,
    cuts: Cuts,
    *,
    branch: int = 0,
    power: jax.Array | None = None,
) -> list[jax.Array]:
    """Global pool of every part of one branch: the maximum, as in the paper, or GeM.

    Args:
        feature_map: `[B, h, w, C]`.
        cuts: `(channel, height, width)`.
        branch: its index, for the error message.
        power: of the generalised mean `mean(x ** power) ** (1 / power)`, a scalar;
            None takes the maximum.

    Returns:
        The local parts `[B, C / channel]` in order, then the global part `[B, C]`.

    Raises:
        ValueError: the map is smaller than its cuts.

    Example:
        >>> import jax.numpy as jnp
        >>> pieces = pool(jnp.ones((1, 4, 4, 6)), (2, 1, 3))
        >>> len(pieces), pieces[0].shape, pieces[-1].shape
        (7, (1, 3), (1, 6))
    """
    B, h, w, C = feature_map.shape
    channel, height, width = cuts
    if h < height or w < width:
        raise ValueError(
            f"parts: branch {branch + 1} {cuts} cuts height into {height} and width "
            f"into {width}, but the feature map is {h} x {w}; use larger images, a "
            "smaller stride (last_stride=1) or fewer cuts"
        )
    reduce = (
        partial(largest, axis=1)
        if power is None
        else partial(generalized_mean, power=power, axis=1)
    )
    regions = [
        reduce(feature_map[:, top:bottom, left:right].reshape(B, -1, C))
        for (top, bottom), (left, right) in product(bounds(h, height), bounds(w, width))
    ]
    chunk = C // channel
    local = [r[:, c * chunk : (c + 1) * chunk] for c in range(channel) for r in regions]
    if power is None:
        return [*local, largest(jnp.stack(regions), axis=0)]
    return [*local, reduce(feature_map.reshape(B, -1, C))]


def descriptor(embeddings: jax.Array) -> jax.Array:
    """Concatenates the parts and scales the whole to unit length.

    The paper's test feature (section 3.1): 17 x 256 = 4352 values, all local parts in
    branch order, then the globals, one L2 norm over all of them.

    Args:
        embeddings: `[B, P, D]` as a network of `dex_jax.models.build` returns them.

    Returns:
        `[B, P * D]` float32 rows of unit length; a zero row stays zero.

    Raises:
        ValueError: another number of axes.

    Example:
        >>> import jax.numpy as jnp
        >>> descriptor(jnp.ones((2, 17, 256))).shape
        (2, 4352)
    """
    if embeddings.ndim != 3:
        raise ValueError(f"embeddings: expected [B, P, D], got {embeddings.shape}")
    flat = embeddings.reshape(embeddings.shape[0], -1)
    flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    norm = jnp.sqrt(jnp.sum(flat * flat, axis=1, keepdims=True))
    return flat / jnp.where(norm == 0, 1, norm)


def table(layout: Layout, *, channels: int, size: tuple[int, int]) -> str:
    """Prints the parts: number, branch, and which channels, rows and columns they see.

    Args:
        layout: the parts.
        channels: C of the feature map.
        size: height and width of the feature map.

    Returns:
        One line a part under a heading.

    Raises:
        ValueError: cuts that do not divide `channels`.

    Example:
        >>> print(table(Layout(((1, 2, 1),)), channels=8, size=(4, 4)))
        part  branch  kind    channels  rows  columns
           0       1  local   0-7       0-1   0-3
           1       1  local   0-7       2-3   0-3
           2       1  global  0-7       0-3   0-3
    """
    layout.widths(channels)
    whole = ((0, channels), (0, size[0]), (0, size[1]))
    rows = []
    for branch, cuts in enumerate(layout.branches):
        pieces = [bounds(end, n) for (_, end), n in zip(whole, cuts, strict=True)]
        rows += [(branch, "local", piece) for piece in product(*pieces)]
    rows += [(branch, "global", whole) for branch in range(layout.num_global)]
    lines = ["part  branch  kind    channels  rows  columns"]
    for part, (branch, kind, piece) in enumerate(rows):
        c, h, w = (f"{start}-{end - 1}" for start, end in piece)
        lines.append(f"{part:4}  {branch + 1:6}  {kind:6}  {c:8}  {h:4}  {w}")
    return "\n".join(lines)
