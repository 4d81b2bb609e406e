"""The embeddings file: descriptors, names and labels of a query and a gallery side."""

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax._checks import check_choice, check_same_width, read_npz, whole_file
from dex_jax.embeddings._fields import (
    FORMAT,
    KNOWN,
    LABELS,
    SIDES,
    VERSION,
    check_header,
    check_norms,
    read_features,
    read_flag,
    read_meta,
    read_names,
)
from dex_jax.embeddings._labels import read_labels
from dex_jax.rerank import fuse


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """The descriptors of Q queries and G gallery images and what is known of them.

    Valid by construction. Labels are compared across the two sides, except tracklets,
    which are numbered per side; -1 is junk or unlabelled (identities), unknown
    (cameras) or none (tracklets). Both labels of a pair are given or neither. They may
    be given as whole numbers, as floats (a column of pandas; NaN is -1) or as words
    ("", "nan" and "-1" are -1), and are int64 here: a word's number is its place in
    `meta["words"]["identities"]` and so on.

    Attributes:
        query_features: `[Q, D]` float32 or float16, finite, no row of zeros.
        gallery_features: `[G, D]`, the same.
        query_names: Q relative POSIX paths, unique; entry i names row i.
        gallery_names: G names.
        query_identities: int64 `[Q]` or None; a query of -1 is not scored.
        gallery_identities: int64 `[G]` or None.
        query_cameras: int64 `[Q]` or None.
        gallery_cameras: int64 `[G]` or None.
        query_tracklets: int64 `[Q]` or None.
        gallery_tracklets: int64 `[G]` or None.
        normalized: a promise that every row has norm 1 within 1e-3; it is checked.
        meta: what else is known, as JSON can hold it.
        extra: further arrays, whose names start with `x_`.

    Raises:
        ValueError: naming the field, what it holds and what was expected.

    Example:
        >>> import numpy as np
        >>> file = EmbeddingFile(np.eye(1, 4), np.eye(3, 4), ("q",), ("a", "b", "c"))
        >>> file.query_features.dtype, len(file.gallery_names)
        (dtype('float32'), 3)
    """

    query_features: np.ndarray
    gallery_features: np.ndarray
    query_names: tuple[str, ...]
    gallery_names: tuple[str, ...]
    query_identities: np.ndarray | None = None
    gallery_identities: np.ndarray | None = None
    query_cameras: np.ndarray | None = None
    gallery_cameras: np.ndarray | None = None
    query_tracklets: np.ndarray | None = None
    gallery_tracklets: np.ndarray | None = None
    normalized: bool = False
    meta: dict = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        object.__setattr__(self, "meta", dict(self.meta))
        for side in SIDES:
            features = read_features(
                getattr(self, f"{side}_features"), f"{side}_features"
            )
            put(f"{side}_features", features)
            names = read_names(
                getattr(self, f"{side}_names"), f"{side}_names", len(features)
            )
            put(f"{side}_names", names)
        check_same_width(
            self.query_features,
            self.gallery_features,
            "query_features",
            "gallery_features",
        )
        for label in LABELS:
            pair = [f"{side}_{label}" for side in SIDES]
            given = [name for name in pair if getattr(self, name) is not None]
            if len(given) == 1:
                missing = pair[1 - pair.index(given[0])]
                raise ValueError(f"{missing}: is missing, while {given[0]} is given")
            if given:
                self._read_labels(label, pair)
        self._check_tracklets()
        for name, values in self.extra.items():
            if not name.startswith("x_") or values.dtype.hasobject:
                raise ValueError(
                    f"extra: expected plain arrays with prefix 'x_', got {name!r} "
                    f"of dtype {values.dtype}"
                )
        if self.normalized:
            check_norms(self.query_features, "query_features")
            check_norms(self.gallery_features, "gallery_features")

    def _read_labels(self, label: str, pair: list[str]) -> None:
        sizes = [len(getattr(self, f"{side}_names")) for side in SIDES]
        columns, words = read_labels({n: getattr(self, n) for n in pair}, sizes)
        for name, column in columns.items():
            object.__setattr__(self, name, column)
        if words:
            known = self.meta.get("words")
            known = known if isinstance(known, dict) else {}
            self.meta["words"] = {**known, label: list(words)}

    def _check_tracklets(self) -> None:
        for side in SIDES:
            tracklets = getattr(self, f"{side}_tracklets")
            identities = getattr(self, f"{side}_identities")
            if tracklets is None or identities is None:
                continue
            seen: dict[int, int] = {}
            for tracklet, identity in zip(
                tracklets.tolist(), identities.tolist(), strict=True
            ):
                if tracklet == -1 or identity == -1:
                    continue
                if seen.setdefault(tracklet, identity) != identity:
                    raise ValueError(
                        f"{side}_tracklets: tracklet {tracklet} holds the identities "
                        f"{seen[tracklet]} and {identity}; a tracklet shows one vehicle"
                    )

    def gallery_tracklet_ids(self) -> np.ndarray:
        """Tracklet ids `[G]` for re-ranking: an image without one is its own tracklet.

        Returns:
            int64 `[G]`; entries of -1 are replaced by numbers that nobody else has.
            Without `gallery_tracklets` every image stands alone.

        Example:
            >>> import numpy as np
            >>> file = EmbeddingFile(
            ...     np.eye(1, 4), np.eye(3, 4), ("q",), ("a", "b", "c"),
            ...     query_tracklets=np.array([-1]),
            ...     gallery_tracklets=np.array([-1, 7, -1]),
            ... )
            >>> file.gallery_tracklet_ids().tolist()
            [8, 7, 9]
        """
        return separate_tracklets(self.gallery_tracklets, len(self.gallery_names))


def separate_tracklets(tracklets: np.ndarray | None, size: int) -> np.ndarray:
    """Tracklet ids `[size]`, with a number of its own for each image that has none."""
    if tracklets is None:
        return np.arange(size)
    ids = tracklets.copy()
    alone = np.flatnonzero(ids == -1)
    ids[alone] = ids.max(initial=-1) + 1 + np.arange(len(alone))
    return ids


def save(
    file: EmbeddingFile,
    path: str | os.PathLike,
    *,
    dtype: str = "float32",
    replace: bool = True,
) -> None:
    """Writes an embeddings file, version 1; an interrupted write leaves no half file.

    Args:
        file: what to write.
        path: where; the name must end in `.npz`.
        dtype: `"float32"`, or `"float16"` for half the size.
        replace: whether a file that is there may be replaced.

    Raises:
        ValueError: another ending or dtype, or float16 cannot hold a row.
        FileExistsError: the file is there, and `replace` is False.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> file = EmbeddingFile(np.eye(1, 4), np.eye(3, 4), ("q",), ("a", "b", "c"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(file, pathlib.Path(folder) / "embeddings.npz")
        ...     load(pathlib.Path(folder) / "embeddings.npz").gallery_names
        ('a', 'b', 'c')
    """
    path = Path(path)
    check_choice(dtype, "dtype", ("float32", "float16"))
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name ending in .npz, got {path}")
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION, np.int64),
        "normalized": np.array(file.normalized),
        "meta": np.array(json.dumps(file.meta)),
        **file.extra,
    }
    for side in SIDES:
        features = getattr(file, f"{side}_features")
        if dtype == "float16" and np.abs(features).max() > np.finfo(np.float16).max:
            raise ValueError(f"dtype: {side}_features holds values beyond float16")
        arrays[f"{side}_features"] = features.astype(dtype)
        arrays[f"{side}_names"] = np.array(getattr(file, f"{side}_names"))
        for label in LABELS:
            values = getattr(file, f"{side}_{label}")
            if values is not None:
                arrays[f"{side}_{label}"] = values
    with whole_file(path, replace=replace) as partial:
        np.savez(partial, **arrays)


def load(path: str | os.PathLike) -> EmbeddingFile:
    """Reads an embeddings file and checks all of it; pickled content is refused.

    float16 features are widened to float32, float64 are narrowed with a warning, keys
    nobody knows are named in a warning (prefix `x_`: kept). A file that says no format,
    as `numpy.savez` writes it, needs `query_features` and `gallery_features` alone;
    without names its images are called `query/000001` and so on.

    Args:
        path: the `.npz` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming the file and what is wrong with it: not a zip or cut short,
            beyond the limits of what may be unpacked, another format or version, a
            missing key, and all that `EmbeddingFile` refuses.
    """
    path = Path(path)
    arrays = read_npz(path, "embeddings file")
    try:
        check_header(arrays)
        for name in arrays:
            if name not in KNOWN and not name.startswith("x_"):
                warnings.warn(f"{path}: unknown key {name!r} is ignored", stacklevel=2)
        fields: dict[str, Any] = {name: arrays[name] for name in KNOWN & arrays.keys()}
        fields.pop("version", None)
        own = fields.pop("format", None) is not None
        if "normalized" in fields:
            fields["normalized"] = read_flag(fields["normalized"], "normalized")
        if "meta" in fields:
            fields["meta"] = read_meta(fields["meta"])
        if not own:
            fields = with_numbered_names(fields, path.name)
        extra = {name: a for name, a in arrays.items() if name.startswith("x_")}
        return EmbeddingFile(**fields, extra=extra)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def with_numbered_names(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Gives the fields of an `EmbeddingFile` names `query/000001`, if they have none.

    Args:
        fields: features, and whatever else is known.
        source: what `meta["source"]` shall say.
    """
    fields = {**fields, "meta": {"source": source, **fields.get("meta", {})}}
    if any(f"{side}_names" in fields for side in SIDES):
        for side in SIDES:
            if f"{side}_names" not in fields:
                raise ValueError(f"{side}_names: is missing, while others are given")
        return fields
    for side in SIDES:
        rows = np.shape(fields[f"{side}_features"])[:1] or (0,)
        fields[f"{side}_names"] = tuple(
            f"{side}/{row + 1:06d}" for row in range(rows[0])
        )
    fields["meta"]["names"] = "numbered"
    return fields


def average(
    files: Sequence[EmbeddingFile], *, method: str = "sum", labels: Sequence[str] = ()
) -> EmbeddingFile:
    """Joins the descriptors of several models or scales, row by row (eq. 4).

    Args:
        files: one or more; equal names in equal order, equal labels where given.
        method: `"sum"` averages unit vectors and scales the mean to length 1 (all
            must have one dimension), `"concat"` puts them side by side.
        labels: what errors call the files; by default their numbers.

    Returns:
        An `EmbeddingFile` with the labels of the first file, rows of unit length.

    Raises:
        ValueError: no file, names or labels that differ, dimensions that differ.

    Example:
        >>> import numpy as np
        >>> one = EmbeddingFile(np.eye(1, 2), np.eye(2), ("q",), ("a", "b"))
        >>> two = EmbeddingFile(np.eye(1, 2, 1), np.eye(2), ("q",), ("a", "b"))
        >>> average([one, two]).query_features.round(3).tolist()
        [[0.7070000171661377, 0.7070000171661377]]
    """
    if not files:
        raise ValueError("files: expected at least one")
    called = list(labels) or [f"file {i}" for i in range(len(files))]
    first = files[0]
    for other, name in zip(files[1:], called[1:], strict=True):
        for side in SIDES:
            _check_equal_names(first, other, side, (called[0], name))
            for label in LABELS:
                a = getattr(first, f"{side}_{label}")
                b = getattr(other, f"{side}_{label}")
                if a is not None and b is not None and not np.array_equal(a, b):
                    raise ValueError(f"{name}: {side}_{label} differ from {called[0]}")
        widths = (first.query_features.shape[1], other.query_features.shape[1])
        if method == "sum" and widths[0] != widths[1]:
            raise ValueError(
                f"{name}: has dimension {widths[1]} and {called[0]} has {widths[0]}; "
                "descriptors of different sizes are not summed: use method 'concat'"
            )
    joined = {
        f"{side}_features": np.asarray(
            fuse([getattr(f, f"{side}_features") for f in files], method=method)
        )
        for side in SIDES
    }
    meta = {**first.meta, "fused": called} if len(files) > 1 else first.meta
    return dataclasses.replace(first, **joined, normalized=True, meta=meta)


def _check_equal_names(
    a: EmbeddingFile, b: EmbeddingFile, side: str, called: tuple[str, str]
) -> None:
    left, right = getattr(a, f"{side}_names"), getattr(b, f"{side}_names")
    if len(left) != len(right):
        raise ValueError(
            f"{called[1]}: holds {len(right)} {side} images and {called[0]} {len(left)}"
        )
    for row, (x, y) in enumerate(zip(left, right, strict=True)):
        if x != y:
            raise ValueError(
                f"{called[1]}: {side}_names: row {row} is {y!r}, in {called[0]} {x!r}; "
                "the files must list the same images in the same order"
            )
