"""Chains of steps: which orders make sense, and what is computed only once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import jax

from dex_jax._checks import check_count
from dex_jax.neighbors._search import limit_k
from dex_jax.rerank import steps
from dex_jax.rerank._embeddings import Embeddings, Ranking
from dex_jax.rerank._graphs import Graphs
from dex_jax.rerank._kinds import (
    Expand,
    Graph,
    Rank,
    Refine,
    State,
    Step,
    read_state,
)

_ORDER = (
    "expand steps (aqe, alpha_qe, dex, dba, tracklet_means) first, then at most one "
    "rank step (cosine, k_reciprocal, tracklet_k_reciprocal, diffusion), then refine "
    "steps (side_bias, same_camera, add_scores, tracklet)"
)


@dataclass(frozen=True)
class Pipeline:
    """A chain of steps in a sensible order; made by `chain` or `parse`.

    Attributes:
        expand: steps that change embeddings.
        rank: the step that scores.
        refine: steps that change scores.
    """

    expand: tuple[Expand, ...]
    rank: Rank
    refine: tuple[Refine, ...]

    @overload
    def __call__(
        self,
        embeddings: Embeddings,
        *,
        top: None = None,
        graphs: Graphs | None = None,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self, embeddings: Embeddings, *, top: int, graphs: Graphs | None = None
    ) -> Ranking: ...
    def __call__(
        self,
        embeddings: Embeddings,
        *,
        top: int | None = None,
        graphs: Graphs | None = None,
    ) -> jax.Array | Ranking:
        """Runs the chain.

        Args:
            embeddings: queries, gallery and, where a step needs them, tracklet ids.
            top: images to keep for each query; all scores if None.
            graphs: neighbour graphs shared with other chains on this gallery.

        Returns:
            Scores `[Q, G]`; with `top` a Ranking `[Q, top]`, made in memory
            `O(block x G + (Q + G) x K)` without any `Q x G` array.

        Raises:
            ValueError: rows that cannot be ranked, missing tracklet ids, or `top` with
                a step that needs all scores where it stands.
        """
        if top is not None:
            check_count(top, "top")
            self._check_order()
        everything = (*self.expand, self.rank, *self.refine)
        users = [step.name for step in everything if step.needs_tracklets]
        state = read_state(embeddings, users)
        for step in self.refine:
            step.check_sizes(state)
        state, graph = self._expanded(state, graphs or Graphs())
        if top is None:
            scores = self.rank.scores(state, graph)
            for step in self.refine:
                scores = step.scores(scores, state)
            return scores
        top = limit_k(top, state.gallery.shape[0], "top")
        tiles = tuple(step.tile for step in self.refine if step.tile is not None)
        ranking = self.rank.ranking(state, graph, top, tiles)
        for step in self.refine:
            if step.ranking is not None:
                ranking = step.ranking(ranking, state)
        return ranking

    def width(self, size: int) -> int:
        """The widest neighbour lists that any step reads of `size` images."""
        return max(step.width(size) for step in (*self.expand, self.rank))

    def _check_order(self) -> None:
        """With `top`, tiles of scores are changed before the best are kept."""
        kept = False
        for step in self.refine:
            if kept and step.tile is not None:
                raise ValueError(
                    f"top: {step.name} needs all scores, it cannot follow tracklet; "
                    "put it in front, or leave top out and pass the scores to top_k"
                )
            kept = kept or step.tile is None

    def _expanded(self, state: State, graphs: Graphs) -> tuple[State, Graph | None]:
        """Runs the expand steps; returns the graph that the rank step reads.

        One graph serves each stretch over which the gallery stays as it is, wide enough
        for its most demanding step: the first k of a longer list are the list of k.
        """
        readers, size = (*self.expand, self.rank), state.gallery.shape[0]
        graph = None
        for place, step in enumerate(self.expand):
            if graph is None and step.width(size):
                graph = graphs.build(state.gallery, _width(readers[place:], size))
            state = step.apply(state, graph)
            if step.changes_gallery:
                graph = None
        if graph is None:
            graph = graphs.build(state.gallery, self.rank.width(size))
        return state, graph


def _width(readers: Sequence[Expand | Rank], size: int) -> int:
    """The widest list read before the gallery changes."""
    width = 0
    for step in readers:
        width = max(width, step.width(size))
        if isinstance(step, Expand) and step.changes_gallery:
            break
    return width


def chain(*links: Step) -> Pipeline:
    """Composes steps into a pipeline, applied from left to right.

    "+A+B" of the paper's tables is `chain(A, B)`: DEx changes the queries and DBA the
    gallery, so in this order both work from the plain gallery.

    Args:
        *links: expand steps, then at most one rank step (cosine if none), then refine
            steps; see `dex_jax.rerank.steps`.

    Returns:
        The pipeline: `pipeline(embeddings)` gives scores `[Q, G]`,
        `pipeline(embeddings, top=100)` a Ranking.

    Raises:
        ValueError: any other order, or something that is no step.

    Example:
        >>> import jax.numpy as jnp
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> embeddings = Embeddings(gallery[:1], gallery, jnp.array([0, 1, 0]))
        >>> pipeline = chain(steps.dex(k=1), steps.tracklet())
        >>> pipeline(embeddings, top=3).ids.tolist()
        [[0, 2, 1]]
    """
    kinds = (Expand, Rank, Refine)
    at = 0
    for link in links:
        if not isinstance(link, kinds):
            raise ValueError(f"chain: expected steps of rerank.steps, got {link!r}")
        place = kinds.index(type(link))
        if place < at or (place == at == 1):
            names = ", ".join(step.name for step in links if isinstance(step, kinds))
            raise ValueError(
                f"chain: {link.name} cannot stand there in ({names}); allowed are "
                + _ORDER
            )
        at = place
    ranks = [link for link in links if isinstance(link, Rank)]
    return Pipeline(
        tuple(link for link in links if isinstance(link, Expand)),
        ranks[0] if ranks else steps.cosine(),
        tuple(link for link in links if isinstance(link, Refine)),
    )
