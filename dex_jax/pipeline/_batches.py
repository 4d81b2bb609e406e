"""Batches of pixels: decoded, resized and read ahead by threads."""

import math
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from dex_jax._checks import check_count
from dex_jax.data._hold_out import class_labels
from dex_jax.data._images import resize
from dex_jax.data._records import Images, ReidSplit
from dex_jax.pipeline._sampler import IdentityBatches

T = TypeVar("T")


class TrainBatch(NamedTuple):
    """One batch of `train_batches`.

    Attributes:
        step: its number.
        images: uint8 `[B, S, S, 3]`, not yet augmented.
        labels: int32 `[B]`, classes 0..C-1.
        indices: int64 `[B]`, the positions in the split (to name the images).
    """

    step: int
    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


class EvalBatch(NamedTuple):
    """One batch of `eval_batches`.

    Attributes:
        images: uint8 `[batch_size, S, S, 3]`; rows from `size` on are zeros.
        size: the images that are there.
    """

    images: np.ndarray
    size: int


class ResizedImages:
    """A split's images at one size, each decoded once where memory or disk can hold it.

    Rows are filled as they are asked for, so the first batch does not wait for the
    whole split. Reading is safe from several threads.

    Args:
        images: N images.
        size: S, the side in pixels.
        memory: bytes that may be kept in memory; a split of `N * S * S * 3` bytes
            that does not fit goes to `cache_dir`.
        cache_dir: folder for a temporary file, mapped into memory, which vanishes with
            the process; None decodes anew each time.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        *,
        memory: int = 2 << 30,
        cache_dir: str | Path | None = None,
    ):
        self._images = images
        self._size = size
        shape = (len(images), size, size, 3)
        self._rows: np.ndarray | None = None
        if math.prod(shape) <= memory:
            self._rows = np.empty(shape, np.uint8)
        elif cache_dir is not None:
            Path(cache_dir).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache_dir) as file:
                self._rows = np.memmap(file, np.uint8, "w+", shape=shape)
        self._filled = np.zeros(len(images), np.bool_)

    @property
    def kept(self) -> bool:
        """Whether decoded images are kept."""
        return self._rows is not None

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 `[M, S, S, 3]`.

        Raises:
            ValueError: an image cannot be decoded; names the file.
        """
        if self._rows is None:
            return np.stack([self._decode(int(i)) for i in indices])
        for i in indices:
            if not self._filled[i]:
                self._rows[i] = self._decode(int(i))
                self._filled[i] = True  # after the row: another thread may look now
        return self._rows[indices]

    def _decode(self, index: int) -> np.ndarray:
        return resize(np.asarray(self._images[index]), self._size)


def train_batches(
    split: ReidSplit,
    batches: IdentityBatches,
    *,
    image_size: int,
    start_step: int = 0,
    workers: int = 2,
    memory: int = 2 << 30,
    cache_dir: str | Path | None = None,
    process: tuple[int, int] = (0, 1),
) -> Generator[TrainBatch, None, None]:
    """Yields training batches without end, read ahead by threads.

    Batch `step` depends on the sampler's seed and the step alone, whatever the number
    of workers and hosts: to resume, give the next step as `start_step`.

    Args:
        split: N labelled images.
        batches: the sampler made from `split.identities`.
        image_size: S, the side in pixels that images are scaled to.
        start_step: the first step.
        workers: threads that read and decode.
        memory: bytes of decoded, resized images that may be kept in memory.
        cache_dir: where a split larger than `memory` is kept; None decodes each image
            anew whenever it is drawn.
        process: this host and the number of hosts, as `jax.process_index()` and
            `jax.process_count()` say; host h of n gets the h-th of n equal runs of
            rows of the batch.

    Returns:
        A generator of `TrainBatch` with `B / n` rows each; closing it ends the threads.

    Raises:
        ValueError: an argument out of range, or a sampler of another split. While
            iterating: an image that cannot be decoded; names the file.

    Example:
        >>> pixels = np.zeros((4, 6, 8, 3), np.uint8)
        >>> split = ReidSplit(pixels, tuple("abcd"), np.array([5, 5, 9, 9]))
        >>> batches = IdentityBatches(split.identities, ids_per_batch=2,
        ...                           images_per_id=2)
        >>> batch = next(train_batches(split, batches, image_size=8))
        >>> batch.images.shape, sorted(batch.labels.tolist())
        ((4, 8, 8, 3), [0, 0, 1, 1])
    """
    if batches.size != len(split):
        raise ValueError(
            f"batches: made for {batches.size} images, the split has {len(split)}"
        )
    check_count(image_size, "image_size")
    check_count(start_step, "start_step", least=0)
    check_count(workers, "workers")
    host, hosts = process
    if not 0 <= host < hosts or batches.batch_size % hosts:
        raise ValueError(
            f"process: expected (host, hosts) with host < hosts and hosts dividing the "
            f"batch of {batches.batch_size}, got {process}"
        )
    labels = class_labels(split)[0]
    images = ResizedImages(split.images, image_size, memory=memory, cache_dir=cache_dir)
    rows = batches.batch_size // hosts

    def load(step: int) -> TrainBatch:
        indices = batches.indices(step)[host * rows : (host + 1) * rows]
        return TrainBatch(step, images.read(indices), labels[indices], indices)

    return _ahead(load, count(start_step), workers)


def eval_batches(
    split: ReidSplit, *, image_size: int, batch_size: int, workers: int = 2
) -> Generator[EvalBatch, None, None]:
    """Yields every image once, in order, in batches of one shape.

    Args:
        split: N images, at least one.
        image_size: S, the side in pixels that images are scaled to.
        batch_size: rows of each batch; the last one is padded with zeros.
        workers: threads that read and decode.

    Returns:
        A generator of `ceil(N / batch_size)` `EvalBatch`.

    Raises:
        ValueError: an empty split or an argument out of range. While iterating: an
            image that cannot be decoded; names the file.

    Example:
        >>> split = ReidSplit(np.zeros((3, 6, 8, 3), np.uint8), tuple("abc"),
        ...                   np.array([1, 1, 2]))
        >>> [b.size for b in eval_batches(split, image_size=8, batch_size=2)]
        [2, 1]
    """
    if not len(split):
        raise ValueError("split: is empty, there is no image to read")
    check_count(image_size, "image_size")
    check_count(batch_size, "batch_size")
    check_count(workers, "workers")
    reader = ResizedImages(split.images, image_size, memory=0)

    def load(start: int) -> EvalBatch:
        indices = np.arange(start, min(start + batch_size, len(split)))
        images = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
        images[: indices.size] = reader.read(indices)
        return EvalBatch(images, indices.size)

    return _ahead(load, iter(range(0, len(split), batch_size)), workers)


def _ahead(
    load: Callable[[int], T], places: Iterator[int], workers: int
) -> Generator[T, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    waiting: deque[Future[T]] = deque()
    try:
        for place in places:
            waiting.append(pool.submit(load, place))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
