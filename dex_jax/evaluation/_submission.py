"""The AI City submission `track2.txt`: writing it, and reading anyone's."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dex_jax._checks import check_file, read_npy, whole_file
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._results import rank_all
from dex_jax.rerank import Pipeline, Ranking, chain, steps

LENGTH = 100


def write_submission(
    path: str | os.PathLike, ids: np.ndarray, *, gallery: int, replace: bool = True
) -> None:
    r"""Writes one line a query: 100 gallery rows, counted from 1, best first.

    Args:
        path: where; replaced as a whole.
        ids: integers `[Q, K]`, K >= min(100, G), gallery rows counted from 0.
        gallery: G.
        replace: whether a file that is there may be replaced.

    Raises:
        FileExistsError: a file is there, and `replace` is False.
        ValueError: lists that are too short, repeat an image or leave the gallery.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "track2.txt"
        ...     write_submission(path, np.array([[2, 0, 1]]), gallery=3)
        ...     path.read_text()
        '3 1 2\n'
    """
    length = min(LENGTH, gallery)
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.shape[1] < length:
        raise ValueError(f"ids: expected [Q, {length}] or more, got {ids.shape}")
    ids = ids[:, :length]
    for row, line in enumerate(ids):
        _check_line(line, gallery, f"ids: row {row}", first=0)
    text = "".join(" ".join(map(str, line)) + "\n" for line in (ids + 1).tolist())
    with whole_file(path, replace=replace) as partial:
        partial.write_text(text, encoding="ascii", newline="\n")


def submit(
    path: str | os.PathLike,
    file: EmbeddingFile,
    pipeline: Pipeline,
    *,
    replace: bool = True,
) -> str:
    """Re-ranks, pulls tracklets in, and writes the first images as the challenge wants.

    Args:
        path: where; replaced as a whole.
        file: Q queries and G gallery images.
        pipeline: the chain; a tracklet step is added at its end where there is none.
        replace: whether a file that is there may be replaced.

    Returns:
        A line that says what was written.
    """
    if "tracklet" not in [step.name for step in pipeline.steps]:
        pipeline = chain(*pipeline.steps, steps.tracklet())
    ids = np.asarray(rank_all(file, pipeline)[1].ids)
    write_submission(path, ids, gallery=len(file.gallery_names), replace=replace)
    return f"wrote {path}: {len(ids)} lines, chain {pipeline}"


def read_submission(path: str | os.PathLike, *, queries: int, gallery: int) -> Ranking:
    """Reads a submission; zero-padded ids, `.jpg` endings and CRLF are understood.

    Args:
        path: the text file.
        queries: Q, the number of lines it must have.
        gallery: G, the largest id it may name.

    Returns:
        A `Ranking` `[Q, min(100, G)]`, ids counted from 0; scores only fall.

    Raises:
        FileNotFoundError: no such file.
        ValueError: naming file, line and value: another number of lines or of ids in
            a line, a word that is no id, an id out of range or named twice.
    """
    path = check_file(path, "submission")
    length = min(LENGTH, gallery)
    size, most = path.stat().st_size, 1024 + 32 * queries * (length + 1)
    if size > most:
        raise ValueError(
            f"{path}: has {size} bytes, {queries} lines of {length} ids at most {most}"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text: {error}") from None
    if len(lines) != queries:
        raise ValueError(
            f"{path}: has {len(lines)} lines, expected one a query: {queries}"
        )
    ids = np.empty((queries, length), np.int32)
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != length:
            raise ValueError(
                f"{path}: line {number} has {len(words)} ids, expected {length}"
            )
        stems = [word.removesuffix(".jpg") for word in words]
        for word, stem in zip(words, stems, strict=True):
            if not (stem.isascii() and stem.isdigit() and len(stem) < 19):
                raise ValueError(
                    f"{path}: line {number}: expected an id, got {word[:40]!r}"
                )
        row = np.array([int(stem) for stem in stems])
        _check_line(row, gallery, f"{path}: line {number}", first=1)
        ids[number - 1] = row - 1
    scores = np.broadcast_to(-np.arange(length, dtype=np.float32), ids.shape)
    return Ranking(jnp.asarray(ids), jnp.asarray(scores))


def read_ranking(
    path: str | os.PathLike, *, queries: int, gallery: int
) -> Ranking | np.ndarray:
    """Reads anyone's ranking: a submission, or distances `[Q, G]` as `.npy`.

    Args:
        path: `.npy` holds distances, smaller is nearer; all else is a submission.
        queries: Q.
        gallery: G.

    Returns:
        A `Ranking`, or scores `[Q, G]` of the type of the distances, larger is better:
        the negative distances, for integers those less 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another shape, NaN, no real numbers, or what `read_submission`
            refuses.
    """
    path = Path(path)
    if path.suffix != ".npy":
        return read_submission(path, queries=queries, gallery=gallery)
    distances = read_npy(path, "ranking")
    if distances.shape != (queries, gallery):
        raise ValueError(
            f"{path}: expected distances [{queries}, {gallery}], got {distances.shape}"
        )
    if distances.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected real numbers, got {distances.dtype}")
    if np.isnan(distances).any():
        raise ValueError(f"{path}: row {np.isnan(distances).any(1).argmax()} holds NaN")
    # In their own type, in which they are ranked. The inverse of all bits, for integers
    # with a sign -d - 1, orders as -d would and has no value that overflows.
    return -distances if distances.dtype.kind == "f" else ~distances


def _check_line(ids: np.ndarray, gallery: int, where: str, *, first: int) -> None:
    last = gallery - 1 + first
    bad = ids[(ids < first) | (ids > last)]
    if bad.size:
        raise ValueError(f"{where}: id {bad[0]} is out of range {first} to {last}")
    values, counts = np.unique(ids, return_counts=True)
    if counts.max(initial=1) > 1:
        raise ValueError(f"{where}: id {values[counts > 1][0]} is named twice")
