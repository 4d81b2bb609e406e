"""A cache of the gallery's own neighbour lists, for several chains on one gallery.

A search of the gallery in itself is most of the work of most chains.
"""

import jax
import jax.numpy as jnp

from dex_jax._checks import check_count, is_concrete
from dex_jax.neighbors import NeighborLists
from dex_jax.rerank._kinds import build_lists


class NeighborCache:
    """A cache that lets several chains on one gallery search it only once.

    Given to each call of a pipeline, it keeps the gallery's own neighbour lists, by far
    the most expensive part of most chains. Galleries are compared by content: one that
    database augmentation has changed is another gallery, and two chains that change it
    in the same way share its lists. Under the caller's `jit`, where arrays cannot be
    compared, nothing is kept.

    Args:
        least: lists are made at least so wide; with the widest `Pipeline.width` of
            the chains to come, none of them searches again. At least 0.
        keep: galleries kept, those used last; at least 1. Each takes the memory of its
            rows `[G, D]` and lists `[G, K]`.

    Attributes:
        searches: how many searches it has made.

    Raises:
        ValueError: a count out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from dex_jax.rerank import Embeddings, parse
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> embeddings, cache = Embeddings(gallery[:1], gallery), NeighborCache(least=3)
        >>> for text in ("dba(k=1)", "k_reciprocal(k1=2,k2=1)"):
        ...     scores = parse(text)(embeddings, cache=cache)
        >>> cache.searches
        1
    """

    def __init__(self, *, least: int = 0, keep: int = 2):
        self._least = check_count(least, "least", least=0)
        self._keep = check_count(keep, "keep")
        self._entries: list[tuple[jax.Array, int, int, NeighborLists]] = []
        self.searches = 0

    def lists(
        self, gallery: jax.Array, width: int, images: int
    ) -> NeighborLists | None:
        """Returns lists `[G, width]` or wider of unit rows; None for width 0.

        Rows from `images` on are padding and stand in no list.
        """
        if not width or not is_concrete(gallery):
            return build_lists(gallery, width, images)
        for place, (known, size, known_width, lists) in enumerate(self._entries):
            # Wider lists serve too: their first entries are the narrower lists.
            if known_width < width or size != images:
                continue
            if _same(known, gallery):
                self._entries.insert(0, self._entries.pop(place))
                return lists
        width = max(width, min(self._least, images))
        lists = build_lists(gallery, width, images)
        if lists is not None:
            self.searches += 1
            entry = (gallery, images, width, lists)
            self._entries = [entry, *self._entries][: self._keep]
        return lists


def _same(a: jax.Array, b: jax.Array) -> bool:
    """Tells whether two galleries are equal and lie on the same devices."""
    if a.sharding.device_set != b.sharding.device_set:
        return False
    # Each call of a chain makes a new array of unit rows, so identity is not enough.
    return a is b or (a.shape == b.shape and bool(jnp.array_equal(a, b)))
