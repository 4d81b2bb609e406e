"""Neighbour graphs kept between chains that search one gallery."""

import jax
import jax.numpy as jnp

from dex_jax._checks import check_count, is_concrete
from dex_jax.rerank._kinds import Graph, build_graph


class Graphs:
    """What several chains on one gallery need to search only once.

    Given to each call of a pipeline, it keeps the gallery's own neighbour lists, by far
    the dearest part of most chains. A gallery is known again by its content, so one
    that database augmentation has changed is another, and the same change by another
    chain is the same. Chains called inside the caller's `jit` search as if there were
    none.

    Args:
        least: lists are made at least so wide; with the widest `Pipeline.width` of
            the chains to come, none of them searches again.
        keep: galleries kept, those used last; each takes `[G, D]` and its lists.

    Example:
        >>> import jax.numpy as jnp
        >>> from dex_jax.rerank import Embeddings, parse
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> embeddings, graphs = Embeddings(gallery[:1], gallery), Graphs(least=3)
        >>> for text in ("dba(k=1)", "k_reciprocal(k1=2,k2=1)"):
        ...     scores = parse(text)(embeddings, graphs=graphs)
        >>> graphs.searches
        1
    """

    def __init__(self, *, least: int = 0, keep: int = 2):
        self._least = check_count(least, "least", least=0)
        self._keep = check_count(keep, "keep")
        self._entries: list[tuple[jax.Array, int, Graph]] = []
        self.searches = 0

    def build(self, gallery: jax.Array, width: int) -> Graph | None:
        """Returns lists of `width` or more of unit rows; None for width 0."""
        if not width or not is_concrete(gallery):
            return build_graph(gallery, width)
        for place, (known, known_width, graph) in enumerate(self._entries):
            if known_width >= width and _same(known, gallery):
                self._entries.insert(0, self._entries.pop(place))
                return graph
        width = max(width, min(self._least, gallery.shape[0]))
        graph = build_graph(gallery, width)
        if graph is not None:
            self.searches += 1
            self._entries = [(gallery, width, graph), *self._entries][: self._keep]
        return graph


def _same(a: jax.Array, b: jax.Array) -> bool:
    return a is b or (a.shape == b.shape and bool(jnp.array_equal(a, b)))
