"""Descriptors in the layouts other frameworks leave behind, read as `EmbeddingFile`."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax._checks import check_count
from dex_jax.embeddings._fields import SIDES
from dex_jax.embeddings._file import EmbeddingFile, load

_PICKLES = {".pkl", ".pickle", ".pth", ".pt", ".joblib"}
_MAT_LABELS = {"label": "identities", "cam": "cameras"}


def read(path: str | os.PathLike, *, num_query: int | None = None) -> EmbeddingFile:
    """Reads descriptors by what the path is.

    - `.npz`: an embeddings file of this project (`dex_jax.embeddings.load`);
    - `.mat`: MATLAB 5 with `query_f`, `gallery_f` and, if there, `*_label`, `*_cam`;
    - a folder that holds `query.npy` and `gallery.npy`;
    - `.npy`: `[Q + G, D]`, queries first, split at `num_query`.

    All but the first carry no names: the images are called `query/000001` and so on.
    Pickles are refused, since reading one runs what it says.

    Args:
        path: the file or folder.
        num_query: Q, for a single `.npy` alone.

    Returns:
        An `EmbeddingFile`; its `meta["source"]` says where it came from.

    Raises:
        FileNotFoundError: nothing there, or half of a pair.
        ValueError: a pickle, an ending nobody knows, `num_query` missing or without
            use, and all that `EmbeddingFile` refuses.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "features.npy"
        ...     np.save(path, np.eye(5, dtype=np.float32))
        ...     read(path, num_query=2).query_names
        ('query/000001', 'query/000002')
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix in _PICKLES:
        raise ValueError(
            f"{path}: is a pickle; reading one runs code, so none is read. Convert it "
            "where it was made: numpy.save('query.npy', query_features), "
            "numpy.save('gallery.npy', gallery_features)"
        )
    if path.suffix == ".npy":
        if num_query is None:
            raise ValueError(f"num_query: is needed to split {path} in two")
        return _read_concatenated(path, check_count(num_query, "num_query"))
    if num_query is not None:
        raise ValueError(f"num_query: only a single .npy is split, got {path}")
    if path.is_dir():
        return _read_pair(path)
    if path.suffix == ".mat":
        return _read_mat(path)
    if path.suffix == ".npz":
        return load(path)
    raise ValueError(
        f"{path}: expected .npz, .mat, .npy or a folder with query.npy and gallery.npy"
    )


def _read_concatenated(path: Path, num_query: int) -> EmbeddingFile:
    features = _load_array(path)
    if features.ndim != 2 or not num_query < len(features):
        raise ValueError(
            f"num_query: {num_query} queries and at least one gallery row expected in "
            f"{path}, got shape {features.shape}"
        )
    return _unnamed(path, features[:num_query], features[num_query:], {})


def _read_pair(folder: Path) -> EmbeddingFile:
    for name in ("query.npy", "gallery.npy"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: the folder lacks this file")
    query, gallery = (_load_array(folder / f"{side}.npy") for side in SIDES)
    return _unnamed(folder, query, gallery, {})


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a plain array: {error}") from None


def _read_mat(path: Path) -> EmbeddingFile:
    arrays = _load_mat(path)
    for side in SIDES:
        if f"{side}_f" not in arrays:
            raise ValueError(
                f"{path}: {side}_f is missing; found {', '.join(sorted(arrays))}"
            )
    labels = {}
    used = {f"{side}_f" for side in SIDES}
    for short, label in _MAT_LABELS.items():
        for side in SIDES:
            key = f"{side}_{short}"
            if key in arrays:
                used.add(key)
                # MATLAB knows no vectors: labels come back as [1, N], often as floats.
                labels[f"{side}_{label}"] = _whole(
                    arrays[key].ravel(), f"{path}: {key}"
                )
    if unused := sorted(arrays.keys() - used):
        warnings.warn(f"{path}: not used: {', '.join(unused)}", stacklevel=3)
    return _unnamed(path, arrays["query_f"], arrays["gallery_f"], labels)


def _load_mat(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat  # jax brings scipy; slow to import

    try:
        contents = loadmat(path)
    except NotImplementedError:
        raise ValueError(
            f"{path}: is MATLAB 7.3 (HDF5); save it with -v5, or as .npy"
        ) from None
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise ValueError(f"{path}: cannot be read as MATLAB 5: {error}") from None
    return {name: a for name, a in contents.items() if not name.startswith("__")}


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ValueError(f"{name}: expected whole numbers")
    return whole


def _unnamed(
    path: Path, query: np.ndarray, gallery: np.ndarray, labels: dict[str, np.ndarray]
) -> EmbeddingFile:
    sides = {"query": query, "gallery": gallery}
    names = [
        tuple(f"{side}/{row + 1:06d}" for row in range(len(features)))
        for side, features in sides.items()
    ]
    meta = {"source": path.name, "names": "numbered"}
    fields: dict[str, Any] = {**labels, "meta": meta}
    try:
        return EmbeddingFile(query, gallery, names[0], names[1], **fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
