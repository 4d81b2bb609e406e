"""Images to descriptors, over scales and models (eq. 4)."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from dex_jax._checks import check_count, unit_rows
from dex_jax.data import ReidData, ReidSplit
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._cache import Cache, Descriptors, code_version, digest
from dex_jax.evaluation._sources import label_words
from dex_jax.pipeline import EvalBatch, eval_batches, normalize
from dex_jax.rerank import fuse

Apply = Callable[[jax.Array], jax.Array]


def scaled_size(image_size: int, scale: float) -> int:
    """Pixels of an image side at a scale of section 3.2; 288 gives 259, 288, 317, 346.

    Raises:
        ValueError: the scale is not above 0, or the image would vanish.

    Example:
        >>> [scaled_size(288, scale) for scale in (0.9, 1.0, 1.1, 1.2)]
        [259, 288, 317, 346]
    """
    if not 0 < scale <= 16:
        raise ValueError(f"scales: expected values in (0, 16], got {scale}")
    size = round(image_size * scale)
    if size < 1:
        raise ValueError(f"scales: {scale} of {image_size} pixels leaves no image")
    return size


def extract(
    apply: Apply,
    split: ReidSplit,
    *,
    image_size: int,
    batch_size: int = 64,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    method: str = "sum",
    devices: Sequence[Any] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Describes N images at several scales and joins the scales (eq. 4).

    Every image is resized to `image_size * scale`, described, scaled to unit length;
    the scales are averaged and scaled to unit length again, or put side by side.

    Args:
        apply: normalised float32 images `[B, S, S, 3]` to descriptors `[B, D]`. A
            `jax.tree_util.Partial` that holds the weights compiles once for all
            weights of a network.
        split: N images.
        image_size: S at scale 1.
        batch_size: B; raised to a multiple of the number of devices. The last batch
            is padded and the padding is dropped again.
        scales: one or more factors.
        flip: also describe the mirror image and average the two unit vectors.
        method: `"sum"` (eq. 4) or `"concat"`.
        devices: where to compute; B is split over them. All local ones by default.
        progress: whether a bar shows images/s and the time left.

    Returns:
        `[N, D]` float32 of unit rows, `[N, len(scales) * D]` for `"concat"`.

    Raises:
        ValueError: an empty split, a scale or size out of range, descriptors that are
            not `[B, D]` and finite.
    """
    if not scales:
        raise ValueError("scales: expected at least one")
    parts = [
        describe(
            apply,
            split,
            size=scaled_size(image_size, scale),
            batch_size=batch_size,
            flip=flip,
            devices=devices,
            progress=progress,
        )
        for scale in scales
    ]
    return np.asarray(
        fuse([jnp.asarray(part.features) for part in parts], method=method)
    )


def describe(
    apply: Apply,
    split: ReidSplit,
    *,
    size: int,
    batch_size: int = 64,
    flip: bool = False,
    devices: Sequence[Any] | None = None,
    progress: bool = True,
    label: str = "describing",
) -> Descriptors:
    """Describes N images at one size; the options are those of `extract`.

    Args:
        apply: normalised float32 images `[B, S, S, 3]` to descriptors `[B, D]`.
        split: N images.
        size: S, in pixels.
        batch_size: B.
        flip: average with the mirror image.
        devices: where to compute.
        progress: whether a bar is shown.
        label: what the bar says.

    Returns:
        `Descriptors` of `[N, D]`.

    Raises:
        ValueError: as `extract`.
    """
    if len(split) == 0:
        raise ValueError("split: holds no images")
    size = check_count(size, "size")
    devices = list(jax.local_devices() if devices is None else devices)
    batch_size = -(-check_count(batch_size, "batch_size") // len(devices))
    batch_size *= len(devices)
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    rows_of = NamedSharding(mesh, PartitionSpec("data"))
    weights = apply if isinstance(apply, Partial) else Partial(apply)
    weights = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
    start = time.perf_counter()
    batches = eval_batches(split, image_size=size, batch_size=batch_size)
    rows = []
    for images, count in _shown(batches, len(split), label, progress):
        # A CPU computes in this thread only what has all of its inputs.
        batch = jax.block_until_ready(jax.device_put(images, rows_of))
        out = np.asarray(_forward(weights, batch, flip))
        rows.append(out[:count])
    features = np.concatenate(rows)  # [N, D]
    _check_described(features, split.names)
    return Descriptors(features, time.perf_counter() - start, reused=False)


@functools.partial(jax.jit, static_argnums=2)
def _forward(apply: Apply, images: jax.Array, flip: bool) -> jax.Array:
    images = normalize(images)  # uint8 -> float32 [B, S, S, 3]
    rows = apply(images)  # [B, D]
    if rows.ndim != 2 or len(rows) != len(images):
        raise ValueError(f"apply: expected descriptors [B, D], got {rows.shape}")
    rows = unit_rows(rows.astype(jnp.float32))
    if flip:
        mirrored = apply(images[:, :, ::-1]).astype(jnp.float32)
        rows = unit_rows(rows + unit_rows(mirrored))
    return rows


def describe_data(
    apply: Apply,
    data: ReidData,
    *,
    size: int,
    batch_size: int,
    flip: bool = False,
    cache: Cache | None = None,
    fingerprint: str = "",
    progress: bool = True,
) -> tuple[EmbeddingFile, float, bool]:
    """Describes the queries and the gallery of a data set at one size.

    Args:
        apply: normalised float32 images `[B, S, S, 3]` to descriptors `[B, D]`.
        data: the data set; its labels go with the descriptors.
        size: S, in pixels.
        batch_size: B.
        flip: average with the mirror image.
        cache: where descriptors are kept; None keeps none.
        fingerprint: what identifies the weights behind `apply`, for the cache.
        progress: whether a bar is shown.

    Returns:
        The embeddings, the seconds the network took for them, and whether all of
        them came from the cache.
    """
    sides = []
    for side, split in (("query", data.query), ("gallery", data.gallery)):

        def compute(split: ReidSplit = split, side: str = side) -> Descriptors:
            return describe(
                apply,
                split,
                size=size,
                batch_size=batch_size,
                flip=flip,
                progress=progress,
                label=f"{side} at {size} pixels",
            )

        key = {
            "weights": fingerprint,
            "data": data.source,
            "names": digest("\n".join(split.names).encode()),
            "size": size,
            "flip": flip,
            "code": code_version(),
        }
        sides.append(compute() if cache is None else cache.get(key, compute))
    query, gallery = sides
    file = EmbeddingFile(
        query.features,
        gallery.features,
        data.query.names,
        data.gallery.names,
        query_identities=data.query.identities,
        gallery_identities=data.gallery.identities,
        query_cameras=data.query.cameras,
        gallery_cameras=data.gallery.cameras,
        query_tracklets=data.query.tracklets,
        gallery_tracklets=data.gallery.tracklets,
        normalized=True,
        meta={
            "data": data.name,
            "source": data.source,
            "notes": list(data.notes),
            **label_words(data),
        },
    )
    return file, query.seconds + gallery.seconds, query.reused and gallery.reused


def _check_described(features: np.ndarray, names: Sequence[str]) -> None:
    finite = np.isfinite(features.sum(axis=1))  # [N]; NaN and infinity spread
    bad = np.flatnonzero(np.logical_not(finite & features.any(axis=1)))
    if bad.size:
        fault = "is all zero" if finite[bad[0]] else "holds NaN or infinity"
        raise ValueError(
            f"apply: the descriptor of {names[bad[0]]!r} {fault} "
            f"({bad.size} such images); the weights are damaged or untrained"
        )


def _shown(
    batches: Iterable[EvalBatch], total: int, label: str, progress: bool
) -> Iterable[EvalBatch]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task(label, total=total, rate="-")
        start, done = time.perf_counter(), 0
        for batch in batches:
            yield batch
            done += batch.size
            rate = done / (time.perf_counter() - start)
            bar.update(task, advance=batch.size, rate=f"{rate:.1f}")
