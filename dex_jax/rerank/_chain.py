"""Chains of steps: the order they must have, and running them on shared lists.

A `Pipeline` runs its expand steps, one rank step and its refine steps. It searches the
gallery in itself once for all steps between two changes of the gallery.
"""

import difflib
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import jax
import jax.numpy as jnp

from dex_jax._checks import check_count, host_value, is_concrete, on_any_mesh
from dex_jax.neighbors import NeighborLists
from dex_jax.neighbors._padding import first_rows
from dex_jax.neighbors._search import limit_k
from dex_jax.rerank import steps
from dex_jax.rerank._cache import NeighborCache
from dex_jax.rerank._embeddings import Embeddings, Ranking
from dex_jax.rerank._fusion import zero_tile
from dex_jax.rerank._kinds import (
    BY_SIDE,
    Expand,
    Pairwise,
    Rank,
    Refine,
    State,
    Step,
    read_state,
)
from dex_jax.rerank._scan import all_scores, best_scores

_ORDER = (
    "expand steps (aqe, alpha_qe, dex, dba, tracklet_means) first, then at most one "
    "rank step (cosine, k_reciprocal, tracklet_k_reciprocal, diffusion), then refine "
    "steps (side_bias, same_camera, add_scores, tracklet)"
)


@dataclass(frozen=True)
class Pipeline:
    """A chain of steps in a sensible order; made by `chain` or `parse`.

    Shown as the text that `parse` reads: options that differ from the defaults, `none`
    for a chain without steps, `name(...)` for a step with arrays or traced values.

    Attributes:
        expand: steps that change embeddings.
        rank: the step that scores.
        refine: steps that change scores.

    Example:
        >>> chain(steps.dex(k=10, alpha=2.0), steps.dba(), steps.tracklet())
        dex(k=10),dba,tracklet
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
        cache: NeighborCache | None = None,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self, embeddings: Embeddings, *, top: int, cache: NeighborCache | None = None
    ) -> Ranking: ...
    @on_any_mesh
    def __call__(
        self,
        embeddings: Embeddings,
        *,
        top: int | None = None,
        cache: NeighborCache | None = None,
    ) -> jax.Array | Ranking:
        """Runs the chain.

        Outside of `jit` and on one device queries are padded inside to few sizes (1, 8,
        32, 64, 128, 256, 384, 512, then by an eighth at most), so that other numbers of
        queries reuse compiled programs. CPUs and accelerators run different kernels,
        whose scores differ by rounding; see `dex_jax.neighbors.form`.

        Args:
            embeddings: queries, gallery and, where a step needs them, tracklet ids.
            top: images to keep for each query, at least 1; beyond `G`: all of them,
                and one warning. All scores if None.
            cache: neighbour lists shared with other chains on this gallery.

        Returns:
            Scores `[Q, G]` float32, larger is better; with `top` a Ranking `[Q, top]`,
            best first, made in memory `O(block x G + (Q + G) x K)` without any `Q x G`
            array.

        Raises:
            ValueError: rows that cannot be ranked, missing tracklet ids, or `top` with
                a step that needs all scores where it stands.
        """
        # Whatever can be refused is, before any work.
        if top is not None:
            check_count(top, "top")
            self._check_order()
        everything = (*self.expand, self.rank, *self.refine)
        users = [step.name for step in everything if step.needs_tracklets]
        state = read_state(embeddings, users)
        for step in self.refine:
            step.check_sizes(state)
        if cache is None:
            cache = NeighborCache()
        if not isinstance(cache, NeighborCache):
            raise ValueError(f"cache: expected a NeighborCache, got {cache!r}")
        state, lists = self._expanded(state, cache)
        # Rows that the user gave are not zero; steps may make such rows.
        zeros = _zeros(state, self.expand) if self.expand else None
        if top is None:
            found = self._scores(state, lists, zeros)
        else:
            top = limit_k(top, state.pair.images, "top")
            found = self._ranking(state, lists, zeros, top)
        return first_rows(found, state.pair.number)  # without the padding

    def _scores(
        self, state: State, lists: NeighborLists | None, zeros: Pairwise | None
    ) -> jax.Array:
        scores = self.rank.scan(state, lists, all_scores)
        if scores.shape[1] != state.pair.images:
            scores = scores[:, : state.pair.images]
        if zeros is not None:
            scores = zeros.of_all(scores)
        for step in self.refine:
            scores = step.apply(scores, state)
        return scores

    def _ranking(
        self,
        state: State,
        lists: NeighborLists | None,
        zeros: Pairwise | None,
        top: int,
    ) -> Ranking:
        """The best `top`: pairwise steps change tiles of scores, the rest the ranking.

        `_check_order` has made sure that no pairwise step follows another refine step.
        """
        pair = state.pair
        changes = [zeros, *(step.pairwise for step in self.refine)]
        changes = [change for change in changes if change is not None]
        # tracklet_k_reciprocal knows no padding of images.
        images = pair.images if self.rank.needs_tracklets else pair.gallery.shape[0]
        sizes = (pair.query.shape[0], images)
        adjust = tuple(change.adjust(sizes) for change in changes)
        keep = functools.partial(best_scores, adjust=adjust, top=top)
        ranking = self.rank.scan(state, lists, keep)
        for step in self.refine:
            if step.ranking is not None:
                ranking = step.ranking(ranking, state)
        return ranking

    def __repr__(self) -> str:
        return ",".join(map(repr, self.steps)) or "none"

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in their order; plain cosine, the default, is left out."""
        rank = () if self.rank.name == "cosine" else (self.rank,)
        return (*self.expand, *rank, *self.refine)

    def with_option(
        self, step: str, option: str, value: object, *, replace: bool = True
    ) -> "Pipeline":
        """Makes the same pipeline with one option of one step changed.

        Args:
            step: its name; of several steps of one name the first is changed.
            option: as in `dex_jax.rerank.steps`.
            value: what the option becomes.
            replace: whether an option that already differs from its default changes.

        Returns:
            The new pipeline; this one if nothing changes.

        Raises:
            ValueError: no such step, or an option or value that it refuses.

        Example:
            >>> chain(steps.dex(k=5), steps.dba()).with_option("dex", "k", 10)
            dex(k=10),dba
        """
        links = list(self.steps)
        names = [link.name for link in links]
        if step not in names:
            raise ValueError(f"{step!r} is not a step of '{self}'")
        at = names.index(step)
        options = dict(links[at].options)
        if option in options and not replace:
            return self
        links[at] = make_step(step, {**options, option: value})
        return chain(*links)

    def width(self, size: int) -> int:
        """The widest gallery lists that any step reads, for a gallery of `size`."""
        return max(step.width(size) for step in (*self.expand, self.rank))

    def _check_order(self) -> None:
        """Refuses, with `top`, steps on all scores where the best alone are known."""
        kept = False
        for step in self.refine:
            if step.pairwise is None and step.ranking is None:
                raise ValueError(
                    f"top: {step} needs all scores; leave top out and pass the scores "
                    "to top_k"
                )
            if kept and step.pairwise is not None:
                raise ValueError(
                    f"top: {step.name} needs all scores, it cannot follow tracklet; "
                    "put it in front, or leave top out and pass the scores to top_k"
                )
            kept = kept or step.pairwise is None

    def _expanded(
        self, state: State, cache: NeighborCache
    ) -> tuple[State, NeighborLists | None]:
        """Runs the expand steps; returns the gallery's lists for the rank step.

        Lists are made once for all steps up to the next change of the gallery, as wide
        as the widest of them reads: the first k of a longer list are the list of k.
        """
        readers, size = (*self.expand, self.rank), state.pair.images
        lists = None
        for place, step in enumerate(self.expand):
            if lists is None and step.width(size):
                width = _width(readers[place:], size)
                lists = cache.lists(state.pair.gallery, width, size)
            state = step.apply(state, lists)
            if step.changes_gallery:
                lists = None
        # The gallery has changed since, or no expand step read lists.
        if lists is None:
            lists = cache.lists(state.pair.gallery, self.rank.width(size), size)
        return state, lists


def _zeros(state: State, expand: Sequence[Expand]) -> Pairwise | None:
    """The change that gives rows of zeros the score 0; None where there are none."""
    pair = state.pair
    query, images = _alive(pair.query), jnp.ones(pair.images, bool)
    if any(step.changes_gallery for step in expand):
        images = _alive(pair.gallery)[: pair.images]
    if is_concrete(query, images) and host_value(jnp.all(query) & jnp.all(images)):
        return None
    sizes = pair.query.shape[0], pair.images
    return Pairwise(zero_tile, (query, images), BY_SIDE, None, sizes)


@jax.jit
def _alive(rows: jax.Array) -> jax.Array:
    """`[N]` bool, which rows are not all zero; in one pass, without an array [N, D]."""
    return jnp.any(rows != 0, axis=1)


def _width(readers: Sequence[Expand | Rank], size: int) -> int:
    """The widest list that steps read before the gallery changes."""
    width = 0
    for step in readers:
        # A step that changes the gallery reads the lists of the old one.
        width = max(width, step.width(size))
        if isinstance(step, Expand) and step.changes_gallery:
            break
    return width


def make_step(name: str, options: Mapping[str, object]) -> Step:
    """Makes a step of `dex_jax.rerank.steps` from its name and options.

    Raises:
        ValueError: an unknown option, or a value that the step refuses; names the step.
    """
    make = getattr(steps, name)
    known = list(inspect.signature(make).parameters)
    for option in options:
        if not isinstance(option, str) or option not in known:
            raise ValueError(
                f"{name} has no option {option!r}; {allowed(option, known)}"
            )
    try:
        return make(**options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def allowed(word: str, names: Sequence[str]) -> str:
    """Text for an error: the names allowed in place of a word, and the most similar."""
    meant = difflib.get_close_matches(str(word).lower(), names, n=1)
    guess = f"; did you mean {meant[0]}?" if meant else ""
    return f"allowed are {', '.join(names) or 'none'}{guess}"


def chain(*links: Step) -> Pipeline:
    """Composes steps into a pipeline, applied from left to right.

    "+A+B" of the paper's tables is `chain(A, B)`: DEx changes the queries and DBA the
    gallery, so in this order both work from the plain gallery.

    Args:
        *links: expand steps, then at most one rank step (cosine if none), then refine
            steps; see `dex_jax.rerank.steps`.

    Returns:
        The pipeline: `pipeline(embeddings)` gives scores `[Q, G]`,
        `pipeline(embeddings, top=100)` a Ranking `[Q, 100]`.

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
    at = 0  # the place in `kinds` that the chain has reached
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
