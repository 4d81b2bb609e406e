"""The keys of an embeddings file: how each is read and what it must hold."""

import json
import re
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from dex_jax._checks import check_rows

FORMAT = "dex_jax/embeddings"
VERSION = 1
SIDES = ("query", "gallery")
LABELS = ("identities", "cameras", "tracklets")
NEEDED = ("query_features", "gallery_features", "query_names", "gallery_names")
KNOWN = {
    *NEEDED,
    *(f"{side}_{label}" for side in SIDES for label in LABELS),
    "format",
    "version",
    "normalized",
    "meta",
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads every array of an `.npz`; pickled content is refused.

    Raises:
        ValueError: naming the file: not a zip, cut short, damaged or pickled.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz file, or cut short")
    arrays = {}
    name = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: key {name!r} holds Python objects (a pickle), which are "
                "never read; save names as unicode arrays and labels as integers"
            ) from None
        raise ValueError(f"{path}: key {name!r} cannot be read: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path}: damaged or cut short: {error}") from None
    return arrays


def check_header(arrays: dict[str, np.ndarray]) -> None:
    """Refuses arrays that are no embeddings file of the version known here."""
    for name in ("format", "version", *NEEDED):
        if name not in arrays:
            raise ValueError(
                f"key {name!r} is missing; found {', '.join(sorted(arrays)) or 'none'}"
            )
    if str(arrays["format"]) != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}, got {str(arrays['format'])!r}")
    if arrays["version"].shape or arrays["version"] != VERSION:
        raise ValueError(f"version: expected {VERSION}, got {arrays['version']}")


def read_meta(value: np.ndarray) -> dict:
    """Reads the JSON object in `meta`."""
    try:
        meta = json.loads(str(value))
    except json.JSONDecodeError as error:
        raise ValueError(f"meta: is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"meta: expected a JSON object, got {type(meta).__name__}")
    return meta


def read_features(values: object, name: str) -> np.ndarray:
    """Reads rows `[N, D]` as float32; float64 that does not fit warns."""
    array = np.asarray(values)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{name}: expected float32 or float16, got {array.dtype}")
    if array.dtype == np.float64 and not np.array_equal(
        array, array.astype(np.float32), equal_nan=True
    ):
        warnings.warn(f"{name}: float64 is narrowed to float32", stacklevel=4)
    return np.asarray(check_rows(array, name))


def read_names(values: object, name: str, size: int) -> tuple[str, ...]:
    """Reads `size` unique relative POSIX paths."""
    array = np.asarray(values)
    if array.shape != (size,) or array.dtype.kind != "U":
        raise ValueError(
            f"{name}: expected {size} words, one a row of features, "
            f"got shape {array.shape} of dtype {array.dtype}"
        )
    names = tuple(array.tolist())
    seen = set()
    for row, word in enumerate(names):
        parts = re.split(r"[/\\]", word)
        if not word or "\\" in word or word.startswith("/") or ".." in parts:
            raise ValueError(
                f"{name}: row {row}: expected a relative path with '/', got {word!r}"
            )
        if word in seen:
            raise ValueError(f"{name}: {word!r} occurs twice, again in row {row}")
        seen.add(word)
    return names


def read_labels(values: object, name: str, size: int) -> np.ndarray:
    """Reads integer labels `[size]`, -1 or more."""
    array = np.asarray(values)
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    bad = np.flatnonzero(array.astype(np.int64) < -1)
    if bad.size:
        raise ValueError(
            f"{name}: row {bad[0]} is {array[bad[0]]}; expected -1 (none) or more"
        )
    return array.astype(np.int64)


def check_norms(features: np.ndarray, name: str) -> None:
    """Refuses rows whose norm is not 1 within 1e-3."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    bad = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if bad.size:
        raise ValueError(
            f"normalized: is true, but row {bad[0]} of {name} has norm "
            f"{norms[bad[0]]:.4g}"
        )
