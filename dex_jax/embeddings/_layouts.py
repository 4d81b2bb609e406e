"""Descriptors in the layouts other frameworks leave behind, read as `EmbeddingFile`."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax._checks import check_count, check_flag, read_npy
from dex_jax.embeddings._fields import HOW_TO_WRITE, LABELS, SIDES
from dex_jax.embeddings._file import EmbeddingFile, load, with_numbered_names
from dex_jax.embeddings._labels import read_labels
from dex_jax.embeddings._matlab import Other, read_mat

_PICKLES = {".pkl", ".pickle", ".pth", ".pt", ".joblib"}
# What makes a full array of numbers of it, in MATLAB.
_MENDS = {
    "text": ", such as grp2idx makes",
    "a cell array": ", such as grp2idx or cell2mat makes",
    "a sparse array": ", such as full makes",
    "complex": ", such as real makes",
}
_MAT_LABELS = {"label": "identities", "cam": "cameras"}


def read(
    path: str | os.PathLike,
    *,
    num_query: int | None = None,
    leave_one_out: bool = False,
) -> EmbeddingFile:
    """Reads descriptors by what the path is.

    - `.npz`: an embeddings file of this project (`dex_jax.embeddings.load`), or arrays
      under the same keys;
    - `.mat`: MATLAB 5 with `query_f`, `gallery_f` `[N, D]` and, if there, `*_label`,
      `*_cam`; or with `Q`, `X` `[D, N]`, a column an image;
    - a folder that holds `query.npy` and `gallery.npy`;
    - `.npy`: `[Q + G, D]`, queries first, split at `num_query`.

    Beside `query.npy` and `gallery.npy` may lie `query_identities.npy`,
    `gallery_identities.npy`, and so on for `cameras`, `tracklets` and `names`; beside
    `features.npy`, `features_identities.npy` and so on, of Q + G entries.

    Where the layout has no names, the images are called `query/000001` and so on.
    Pickles are refused, since reading one runs what it says.

    Args:
        path: the file or folder.
        num_query: Q, for a single `.npy` alone.
        leave_one_out: each of the N images of a single `.npy` is a query to all of
            them; both sides have the same names, by which an image is known again.

    Returns:
        An `EmbeddingFile`; its `meta["source"]` says where it came from.

    Raises:
        FileNotFoundError: nothing there, or half of a pair.
        ValueError: a pickle, an ending nobody knows, `num_query` missing or without
            use, damage, and all that `EmbeddingFile` refuses.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "features.npy"
        ...     np.save(path, np.eye(5, dtype=np.float32))
        ...     read(path, num_query=2).query_names
        ('query/000001', 'query/000002')
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix in _PICKLES:
        raise ValueError(
            f"{path}: is a pickle; reading one runs code, so none is read. Convert it "
            "where it was made: numpy.save('query.npy', query_features), "
            "numpy.save('gallery.npy', gallery_features)"
        )
    check_flag(leave_one_out, "leave_one_out")
    if path.suffix == ".npy" and not path.is_dir():
        if leave_one_out and num_query is None:
            return _read_every(path)
        if num_query is None:
            raise ValueError(
                f"num_query: is needed to split {path} in two (or leave_one_out, with "
                "which each image is a query to all others)"
            )
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


def _read_every(path: Path) -> EmbeddingFile:
    beside = _read_beside(_stem(path))
    fields = {"features": read_npy(path), **beside}
    if "names" not in fields:
        size = np.shape(fields["features"])[:1] or (0,)
        fields["names"] = np.array(
            [f"image/{row + 1:06d}" for row in range(size[0])], "U"
        )
    return _build(path, {f"{s}_{k}": v for k, v in fields.items() for s in SIDES})


def _read_concatenated(path: Path, num_query: int) -> EmbeddingFile:
    features = read_npy(path)
    if features.ndim != 2 or not num_query < len(features):
        raise ValueError(
            f"num_query: {num_query} queries and at least one gallery row expected in "
            f"{path}, got shape {features.shape}"
        )
    fields = {}
    for key, values in {"features": features, **_read_beside(_stem(path))}.items():
        if values.shape[:1] != features.shape[:1]:
            raise ValueError(
                f"{_stem(path)}_{key}.npy: expected {len(features)} entries, one a "
                f"row of {path.name}, got shape {values.shape}"
            )
        fields |= {f"query_{key}": values[:num_query]}
        fields |= {f"gallery_{key}": values[num_query:]}
    return _build(path, fields)


def _read_pair(folder: Path) -> EmbeddingFile:
    fields = {}
    for side in SIDES:
        path = folder / f"{side}.npy"
        if not path.exists():
            raise FileNotFoundError(f"{path}: the folder lacks this file")
        fields[f"{side}_features"] = read_npy(path)
        for key, values in _read_beside(folder / side).items():
            fields[f"{side}_{key}"] = values
    return _build(folder, fields)


def _stem(path: Path) -> Path:
    return path.with_suffix("")


def _read_beside(stem: Path) -> dict[str, np.ndarray]:
    """Reads `STEM_identities.npy` and its like, where they are there."""
    found = {}
    for key in ("names", *LABELS):
        path = stem.with_name(f"{stem.name}_{key}.npy")
        if os.path.lexists(path):
            found[key] = read_npy(path)
    return found


def _read_mat(path: Path) -> EmbeddingFile:
    arrays = read_mat(path)
    keys = {side: f"{side}_f" for side in SIDES}
    columns = keys["query"] not in arrays and {"Q", "X"} <= arrays.keys()
    if columns:
        keys = dict(zip(SIDES, "QX", strict=True))
    missing = [key for key in keys.values() if key not in arrays]
    if missing:
        raise ValueError(
            f"{path}: {missing[0]} is missing; found "
            f"{', '.join(sorted(arrays)) or 'none'}. {HOW_TO_WRITE}"
        )
    fields: dict[str, Any] = {}
    for side, key in keys.items():
        features = _full(arrays, key, path)
        fields[f"{side}_features"] = features.T if columns else features
    used = set(keys.values())
    for short, label in _MAT_LABELS.items():
        there = {
            side: f"{side}_{short}" for side in SIDES if f"{side}_{short}" in arrays
        }
        used |= set(there.values())
        # MATLAB knows no vectors: labels come back as [1, N], often as floats.
        given = {key: _full(arrays, key, path).ravel() for key in there.values()}
        sizes = [len(fields[f"{side}_features"]) for side in there]
        try:
            read_labels(given, sizes)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        fields |= {f"{side}_{label}": given[key] for side, key in there.items()}
    if unused := sorted(arrays.keys() - used):
        warnings.warn(f"{path}: not used: {', '.join(unused)}", stacklevel=3)
    return _build(path, fields)


def _full(arrays: Mapping[str, np.ndarray | Other], key: str, path: Path) -> np.ndarray:
    """Returns a full array of real numbers."""
    array = arrays[key]
    if isinstance(array, Other):
        raise ValueError(
            f"{path}: {key} is {array.kind}; expected a full array of real numbers"
            f"{_MENDS.get(array.kind, '')}"
        )
    return array


def _build(path: Path, fields: Mapping[str, Any]) -> EmbeddingFile:
    try:
        return EmbeddingFile(**with_numbered_names(fields, path.name))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
