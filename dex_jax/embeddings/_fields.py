"""The keys of an embeddings file: how each is read and what it must hold."""

import json
import re
import warnings

import numpy as np

from dex_jax._checks import check_rows

FORMAT = "dex_jax/embeddings"
VERSION = 1
SIDES = ("query", "gallery")
LABELS = ("identities", "cameras", "tracklets")
HOW_TO_WRITE = (
    "Write the file with dex_jax.embeddings.save(EmbeddingFile(query_features, "
    "gallery_features, query_names, gallery_names, ...), 'embeddings.npz')"
)
NEEDED = ("query_features", "gallery_features", "query_names", "gallery_names")
KNOWN = {
    *NEEDED,
    *(f"{side}_{label}" for side in SIDES for label in LABELS),
    "format",
    "version",
    "normalized",
    "meta",
}


def check_header(arrays: dict[str, np.ndarray]) -> None:
    """Refuses arrays that are no embeddings file of the version known here.

    Files of other programs, which say no format, need features alone.
    """
    own = "format" in arrays
    for name in ("version", *NEEDED) if own else NEEDED[:2]:
        if name not in arrays:
            raise ValueError(
                f"key {name!r} is missing; found {', '.join(sorted(arrays)) or 'none'}."
                f" {HOW_TO_WRITE}"
            )
    if not own:
        return
    if read_word(arrays["format"], "format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT!r}, got {str(arrays['format'])!r}")
    version = arrays["version"]
    if version.shape or version.dtype.kind not in "iu" or version != VERSION:
        raise ValueError(f"version: expected {VERSION}, got {version}")


def read_word(value: np.ndarray, name: str) -> str:
    """Reads one word."""
    if value.shape or value.dtype.kind != "U":
        raise ValueError(
            f"{name}: expected one word, got shape {value.shape} of {value.dtype}"
        )
    return str(value)


def read_flag(value: np.ndarray, name: str) -> bool:
    """Reads one truth value."""
    if value.shape or value.dtype != np.bool_:
        raise ValueError(
            f"{name}: expected True or False, got shape {value.shape} of {value.dtype}"
        )
    return bool(value)


def read_meta(value: np.ndarray) -> dict:
    """Reads the JSON object in `meta`."""
    try:
        meta = json.loads(read_word(value, "meta"))
    except json.JSONDecodeError as error:
        raise ValueError(f"meta: is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("meta: is not JSON: it is nested too deeply") from None
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


def check_norms(features: np.ndarray, name: str) -> None:
    """Refuses rows whose norm is not 1 within 1e-3."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    bad = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if bad.size:
        raise ValueError(
            f"normalized: is true, but row {bad[0]} of {name} has norm "
            f"{norms[bad[0]]:.4g}"
        )
