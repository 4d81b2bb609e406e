"""Average precision and CMC by sorting each row of scores."""

import importlib.util
from pathlib import Path

import numpy as np


def argsort_map(
    scores: np.ndarray, query_identities: np.ndarray, gallery_identities: np.ndarray
) -> float:
    precisions = []
    for row, identity in zip(scores, query_identities, strict=True):
        hits = gallery_identities[np.argsort(-row, kind="stable")] == identity
        places = np.flatnonzero(hits)
        if places.size:
            precisions.append(np.mean(np.arange(1, places.size + 1) / (places + 1)))
    return float(np.mean(precisions))


def cython_map(
    scores: np.ndarray, query_identities: np.ndarray, gallery_identities: np.ndarray
) -> float:
    """The compiled evaluation of the `fastreid` package, cameras all different."""
    package = importlib.util.find_spec("fastreid")
    if package is None or not package.submodule_search_locations:
        raise ImportError("fastreid is not installed")
    folder = Path(package.submodule_search_locations[0])
    built = sorted((folder / "evaluation" / "rank_cylib").glob("rank_cy.*.so"))
    if not built:
        raise ImportError("fastreid is installed without its compiled evaluation")
    spec = importlib.util.spec_from_file_location("rank_cy", built[0])
    if spec is None or spec.loader is None:
        raise ImportError(f"{built[0].name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    query_cameras = np.zeros(len(query_identities), np.int64)
    gallery_cameras = np.ones(len(gallery_identities), np.int64)
    _, ap, _ = module.evaluate_cy(
        -scores,
        query_identities,
        gallery_identities,
        query_cameras,
        gallery_cameras,
        50,
    )
    return float(np.mean(ap))
