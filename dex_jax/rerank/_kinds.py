"""The three kinds of re-ranking steps, each a type of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dex_jax._checks import check_ids
from dex_jax.neighbors import Neighbors
from dex_jax.neighbors._search import self_search
from dex_jax.rerank._embeddings import Embeddings, Ranking, read_scores, unit_pair
from dex_jax.rerank._tracklets import Tracklets, group_tracklets

# The gallery's own neighbour lists, the image itself counted, and the smallest cosine
# of each image over the gallery.
Graph = tuple[Neighbors, jax.Array]
Planned = TypeVar("Planned")
# From a tile of scores [b, c], its first row and its first column to a tile.
Tile = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class State(NamedTuple):
    """What a chain carries: checked unit rows and grouped tracklets.

    Attributes:
        query: `[Q, D]` unit rows.
        gallery: `[G, D]` unit rows.
        tracklets: the gallery's images by tracklet, or None.
    """

    query: jax.Array
    gallery: jax.Array
    tracklets: Tracklets | None


def _no_lists(size: int) -> int:
    del size
    return 0


@dataclass(frozen=True)
class Expand:
    """A step that changes embeddings: `Embeddings -> Embeddings`.

    Attributes:
        name: as in `parse`.
        apply: from the state and the gallery's graph to the next state.
        width: neighbours of each gallery image that it reads, for a gallery of `G`.
        changes_gallery: the gallery's graph does not hold afterwards.
        needs_tracklets: the embeddings must have tracklet ids.
    """

    name: str
    apply: Callable[[State, Graph | None], State]
    width: Callable[[int], int] = _no_lists
    changes_gallery: bool = False
    needs_tracklets: bool = False

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Applies the step alone; the rows it returns have unit length."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        graph = build_graph(state.gallery, self.width(state.gallery.shape[0]))
        after = self.apply(state, graph)
        return Embeddings(after.query, after.gallery, embeddings.tracklet_ids)


@dataclass(frozen=True)
class Rank:
    """A step that scores the gallery: `Embeddings -> scores`.

    Attributes:
        name: as in `parse`.
        scores: from the state and the gallery's graph to scores `[Q, G]`.
        ranking: the same, but the best `top` alone, never a `Q x G` array; tiles of
            scores go through the refine steps given (see `adjusted`).
        width: neighbours of each gallery image that it reads, for a gallery of `G`.
        needs_tracklets: the embeddings must have tracklet ids.
    """

    name: str
    scores: Callable[[State, Graph | None], jax.Array]
    ranking: Callable[[State, Graph | None, int, tuple[Tile, ...]], Ranking]
    width: Callable[[int], int] = _no_lists
    needs_tracklets: bool = False

    def __call__(self, embeddings: Embeddings) -> jax.Array:
        """Applies the step alone: scores `[Q, G]`."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        graph = build_graph(state.gallery, self.width(state.gallery.shape[0]))
        return self.scores(state, graph)


@dataclass(frozen=True)
class Refine:
    """A step that changes scores: `scores -> scores`.

    Attributes:
        name: as in `parse`.
        scores: from scores `[Q, G]` and the state to scores `[Q, G]`.
        ranking: the same on a Ranking, where the best K say what the best K are
            afterwards; None where they do not, and `tile` is given.
        tile: the same on a tile of the scores; also takes its first row and column.
        sizes: `(Q, G)` of what the step was made for; any if None.
        needs_tracklets: the embeddings must have tracklet ids.
    """

    name: str
    scores: Callable[[jax.Array, State], jax.Array]
    ranking: Callable[[Ranking, State], Ranking] | None = None
    tile: Tile | None = None
    sizes: tuple[int, ...] | None = None
    needs_tracklets: bool = False

    def __call__(self, scores: jax.Array, embeddings: Embeddings) -> jax.Array:
        """Applies the step alone to scores `[Q, G]` of these embeddings."""
        state = read_state(embeddings, [self.name] if self.needs_tracklets else [])
        self.check_sizes(state)
        return self.scores(read_scores(scores, "scores"), state)

    def check_sizes(self, state: State) -> None:
        """Refuses embeddings that the step was not made for."""
        sizes = state.query.shape[0], state.gallery.shape[0]
        if self.sizes not in (None, sizes):
            raise ValueError(
                f"{self.name}: was made for (Q, G) = {self.sizes}, the embeddings have "
                f"{sizes}"
            )


Step = Expand | Rank | Refine


def read_state(embeddings: Embeddings, track_users: list[str]) -> State:
    """Checks embeddings at the public border; `track_users` need tracklet ids."""
    query, gallery = unit_pair(embeddings.query, embeddings.gallery)
    if embeddings.tracklet_ids is None:
        if track_users:
            raise ValueError(
                f"tracklet_ids: {', '.join(track_users)} needs them, got None"
            )
        return State(query, gallery, None)
    ids = check_ids(embeddings.tracklet_ids, "tracklet_ids", size=gallery.shape[0])
    return State(query, gallery, group_tracklets(ids) if track_users else None)


def build_graph(gallery: jax.Array, width: int) -> Graph | None:
    """The gallery's own lists of `width`; None where nobody reads them."""
    return self_search(gallery, k=width) if width else None


def first(graph: Neighbors, width: int) -> Neighbors:
    """The first `width` of each list."""
    return Neighbors(graph.ids[:, :width], graph.scores[:, :width])


def known(planned: Planned | None) -> Planned:
    """What the chain has provided because the step said that it needs it."""
    if planned is None:
        raise TypeError("the chain left out what this step said it needs")
    return planned


def adjusted(
    scores: jax.Array, tiles: tuple[Tile, ...], row: jax.Array, column: jax.Array
) -> jax.Array:
    """A tile of scores after the refine steps; masked ones stay above -inf.

    Minus infinity is left to mark what has not been filled in a running list.
    """
    if not tiles:
        return scores
    for tile in tiles:
        scores = tile(scores, row, column)
    return jnp.maximum(scores, jnp.finfo(scores.dtype).min)


def unmarked(ranking: Ranking) -> Ranking:
    """Gives masked images, kept above -inf by `adjusted`, their -inf back."""
    lowest = jnp.finfo(ranking.scores.dtype).min
    scores = jnp.where(ranking.scores == lowest, -jnp.inf, ranking.scores)
    return Ranking(ranking.ids, scores)
