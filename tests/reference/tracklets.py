"""Pulling tracklets into a ranking, as a walk down the list."""

import numpy as np


def pulled_in(ranking: list[int], tracklet_ids: np.ndarray) -> list[int]:
    """At the first image of a tracklet all of its images follow, in gallery order."""
    seen, order = set(), []
    for image in ranking:
        track = int(tracklet_ids[image])
        if track not in seen:
            seen.add(track)
            order += np.flatnonzero(tracklet_ids == track).tolist()
    return order
