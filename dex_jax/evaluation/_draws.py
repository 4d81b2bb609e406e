"""The further random galleries of a protocol that repeats them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from dex_jax.data import Protocol, random_gallery
from dex_jax.embeddings import EmbeddingFile

_LABELS = ("identities", "cameras", "tracklets")


def further_draws(file: EmbeddingFile, protocol: Protocol) -> Iterator[EmbeddingFile]:
    """Yields the second and later random galleries of a protocol.

    The queries and the gallery of a file are one of the `protocol.draws` ways to split
    its images; the images are described once and split again for each.

    Args:
        file: the first gallery, with identities.
        protocol: how many galleries, and their seed.

    Raises:
        ValueError: more than one gallery is asked for and an image stands on both
            sides, or there are no identities.
    """
    if protocol.draws == 1:
        return
    if file.query_identities is None or file.gallery_identities is None:
        raise ValueError(f"identities: the galleries of {protocol.name} need them")
    names = (*file.query_names, *file.gallery_names)
    if shared := set(file.query_names) & set(file.gallery_names):
        raise ValueError(
            f"gallery_names: {min(shared)!r} is a query too; {protocol.name} draws "
            "each gallery from all images, of which none may stand twice"
        )
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    both: dict[str, np.ndarray] = {
        "features": np.concatenate([file.query_features, file.gallery_features])
    }
    for label in _LABELS:
        query, gallery = (getattr(file, f"{s}_{label}") for s in ("query", "gallery"))
        # Tracklets are numbered on each side apart, and mixed sides lose them.
        if query is not None and gallery is not None and label != "tracklets":
            both[label] = np.concatenate([query, gallery])
    for draw in range(1, protocol.draws):
        chosen = random_gallery(
            both["identities"][order], draw=draw, seed=protocol.draw_seed
        )
        fields: dict[str, Any] = {"query_tracklets": None, "gallery_tracklets": None}
        for side, rows in (("query", order[~chosen]), ("gallery", order[chosen])):
            fields[f"{side}_names"] = tuple(names[row] for row in rows)
            fields |= {f"{side}_{kind}": values[rows] for kind, values in both.items()}
        yield replace(file, extra={}, **fields)
