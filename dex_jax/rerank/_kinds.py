"""The three kinds of re-ranking steps, each a type of its own.

Expand steps change embeddings, rank steps score the gallery, refine steps change
scores. `dex_jax.rerank.steps` makes them; each can also be called alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from dex_jax._checks import ArrayLike, check_ids, on_any_mesh
from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._padding import first_rows
from dex_jax.neighbors._search import self_search
from dex_jax.neighbors._split import as_given
from dex_jax.rerank._embeddings import (
    Embeddings,
    Pair,
    Ranking,
    all_asked,
    read_pair,
    read_scores,
)
from dex_jax.rerank._scan import Adjust, Scan, Tile, all_scores
from dex_jax.rerank._tracklets import Tracklets, group_tracklets

Planned = TypeVar("Planned")
# Axes along which queries and images lie: in an array each, or both in one `[Q, G]`.
BY_SIDE, BY_PAIR = ((0, None), (None, 0)), ((0, 1),)
# Names and values of a step's options, only those that differ from the defaults.
Options = tuple[tuple[str, object], ...]


class State(NamedTuple):
    """What a chain carries from step to step.

    Attributes:
        pair: unit rows of queries and gallery.
        tracklets: the gallery's images by tracklet; None where no step needs them.
    """

    pair: Pair
    tracklets: Tracklets | None

    def with_query(self, query: jax.Array) -> "State":
        """The state with other queries `[Q, D]`."""
        return self._replace(pair=self.pair._replace(query=query))

    def with_gallery(self, gallery: jax.Array) -> "State":
        """The state with another gallery `[G, D]`."""
        return self._replace(pair=self.pair._replace(gallery=gallery))


def _no_lists(size: int) -> int:
    del size
    return 0


class _Written:
    """A step shown as the text that `parse` reads."""

    name: str
    options: Options

    def __repr__(self) -> str:
        if not self.options:
            return self.name
        # Arrays and traced values have no text: `parse` refuses the dots by name.
        if not all(isinstance(value, int | float | str) for _, value in self.options):
            return f"{self.name}(...)"
        inside = ",".join(f"{name}={_short(value)}" for name, value in self.options)
        return f"{self.name}({inside})"


def _short(value: object) -> str:
    """The shortest text that reads as the value."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"  # six digits
    return short if float(short) == value else repr(value).removesuffix(".0")


@dataclass(frozen=True, repr=False)
class Expand(_Written):
    """A step that changes embeddings: `Embeddings -> Embeddings`.

    Attributes:
        name: as in `parse`.
        apply: from the state and the gallery's own lists to the next state.
        width: from G to the entries of the gallery's own lists that it reads.
        changes_gallery: whether lists made before are wrong afterwards.
        needs_tracklets: the embeddings must have tracklet ids.
        options: those that differ from the defaults.
    """

    name: str
    apply: Callable[[State, NeighborLists | None], State]
    width: Callable[[int], int] = _no_lists
    changes_gallery: bool = False
    needs_tracklets: bool = False
    options: Options = field(default=(), compare=False)  # for the text alone

    @on_any_mesh
    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Applies the step alone; the rows it returns have unit length."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        images = state.pair.images
        lists = build_lists(state.pair.gallery, self.width(images), images)
        pair = self.apply(state, lists).pair
        return Embeddings(
            first_rows(pair.query, pair.number),
            as_given(pair.gallery, embeddings.gallery),
            embeddings.tracklet_ids,
        )


@dataclass(frozen=True, repr=False)
class Rank(_Written):
    """A step that scores the gallery: `Embeddings -> scores`.

    Attributes:
        name: as in `parse`.
        scan: `(state, lists, use) -> use(scan)`, with the gallery's own lists and the
            scores of the step as a Scan.
        width: from G to the entries of the gallery's own lists that it reads.
        needs_tracklets: the embeddings must have tracklet ids.
        options: those that differ from the defaults.
    """

    name: str
    # A callback, since k-reciprocal may have to repeat all of it in larger arrays.
    scan: Callable[[State, NeighborLists | None, Callable[[Scan], Any]], Any]
    width: Callable[[int], int] = _no_lists
    needs_tracklets: bool = False
    options: Options = field(default=(), compare=False)

    @on_any_mesh
    def __call__(self, embeddings: Embeddings) -> jax.Array:
        """Applies the step alone: scores `[Q, G]`."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        images = state.pair.images
        lists = build_lists(state.pair.gallery, self.width(images), images)
        return all_asked(self.scan(state, lists, all_scores), state.pair)


class Pairwise(NamedTuple):
    """A change of each score that depends only on the score, its query and its image.

    Attributes:
        function: `(arrays, number, tile) -> scores` of the tile.
        arrays: what is known of queries and images, one array each or one of pairs.
        axes: of each array, the axes that queries and images lie along, None where it
            has no such axis. They are padded like the scores before use.
        number: the option of the change, such as its weight.
        sizes: `(Q, G)` of the embeddings that it was made for.
    """

    function: Callable[[tuple[jax.Array, ...], Any, Tile], jax.Array]
    arrays: tuple[jax.Array, ...]
    axes: tuple[tuple[int | None, int | None], ...]
    number: Any
    sizes: tuple[int, int]

    def adjust(self, sizes: tuple[int, ...]) -> Adjust:
        """The change for scores of so many queries and images, padding included."""
        more = [there - own for there, own in zip(sizes, self.sizes, strict=True)]

        def padded(array: jax.Array, axes: tuple[int | None, int | None]) -> jax.Array:
            pad = [(0, 0)] * array.ndim
            for axis, rows in zip(axes, more, strict=True):
                if axis is not None:
                    pad[axis] = (0, rows)
            return jnp.pad(array, pad, mode="edge") if any(more) else array

        arrays = tuple(map(padded, self.arrays, self.axes))
        # A pytree of its arrays: other values of the same shapes share a program.
        return Partial(self.function, arrays, self.number)

    def of_all(self, scores: jax.Array) -> jax.Array:
        """The change of all scores `[Q, G]`."""
        zero = jnp.int32(0)  # one tile: the whole matrix
        return self.adjust(scores.shape)(Tile(scores, zero, zero))


@dataclass(frozen=True, repr=False)
class Refine(_Written):
    """A step that changes scores: `scores -> scores`.

    Attributes:
        name: as in `parse`.
        pairwise: the change, where each score changes independently of the others;
            else None.
        scores: else the change, from scores `[Q, G]` and the state to scores.
        ranking: the same change of a Ranking `[Q, K]`, where the best K before suffice
            to know the best K afterwards.
        needs_tracklets: the embeddings must have tracklet ids.
        options: those that differ from the defaults.
    """

    name: str
    pairwise: Pairwise | None = None
    scores: Callable[[jax.Array, State], jax.Array] | None = None
    ranking: Callable[[Ranking, State], Ranking] | None = None
    needs_tracklets: bool = False
    options: Options = field(default=(), compare=False)

    @on_any_mesh
    def __call__(self, scores: ArrayLike, embeddings: Embeddings) -> jax.Array:
        """Applies the step alone to scores `[Q, G]` of these embeddings."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        self.check_sizes(state)
        return self.apply(read_scores(scores, "scores"), state)

    def apply(self, scores: jax.Array, state: State) -> jax.Array:
        """The change of all scores `[Q, G]`."""
        if self.pairwise is None:
            return known(self.scores)(scores, state)
        return self.pairwise.of_all(scores)

    def check_sizes(self, state: State) -> None:
        """Refuses embeddings that the step was not made for."""
        sizes = state.pair.number, state.pair.images
        if self.pairwise is not None and self.pairwise.sizes != sizes:
            raise ValueError(
                f"{self.name}: was made for (Q, G) = {self.pairwise.sizes}, the "
                f"embeddings have {sizes}"
            )


Step = Expand | Rank | Refine


def read_state(embeddings: Embeddings, track_users: list[str]) -> State:
    """Checks embeddings at the public border; `track_users` need tracklet ids."""
    if not isinstance(embeddings, Embeddings):
        kind = type(embeddings).__name__
        raise ValueError(f"embeddings: expected rerank.Embeddings, got {kind}")
    pair = read_pair(embeddings.query, embeddings.gallery)
    if embeddings.tracklet_ids is None:
        if track_users:
            raise ValueError(
                f"tracklet_ids: {', '.join(track_users)} needs them, got None"
            )
        return State(pair, None)
    size = pair.images
    # Ids are checked even where no step needs them; grouping them takes a sort.
    ids = check_ids(embeddings.tracklet_ids, "tracklet_ids", size=size)
    return State(pair, group_tracklets(ids) if track_users else None)


def build_lists(gallery: jax.Array, width: int, images: int) -> NeighborLists | None:
    """The gallery's own lists of `width`; None where nobody reads them.

    Rows from `images` on are padding and stand in no list.
    """
    return self_search(gallery, k=width, size=images) if width else None


def known(planned: Planned | None) -> Planned:
    """A value that the chain has prepared, as the step declared that it needs it."""
    if planned is None:
        raise TypeError("the chain left out what this step said it needs")
    return planned
