"""The embedded data set: drawn once from a seed, kept, and read like any other."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dex_jax._checks import check_choice, check_count
from dex_jax.data._images import decode_bytes
from dex_jax.data._records import Protocol, ReidData, ReidSplit
from dex_jax.procedural._plan import (
    RECIPES,
    SPLITS,
    VERSION,
    Job,
    digest,
    plan,
)
from dex_jax.procedural._worker import Drawn, draw_all


class JpegImages:
    """N images kept as JPEG files; `images[i]` decodes uint8 `[S, S, 3]`."""

    def __init__(self, read: Callable[[int], bytes], names: tuple[str, ...]):
        self._read = read
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return decode_bytes(self._read(int(index)), self._names[index])


def load_procedural(
    *,
    size: str = "demo",
    seed: int = 0,
    data_dir: str | Path | None = None,
    progress: bool = True,
    workers: int | None = None,
    in_memory: bool = False,
) -> ReidData:
    """Loads the embedded set of drawn vehicles, drawing it on the first call.

    Identities of train and of query and gallery are disjoint; there is one tracklet
    for each (identity, camera); the queries of an identity come from one camera, its
    gallery images from others. Sizes in the published proportions of CityFlow-ReID.

    Args:
        size: "tiny" (12 + 12 identities), "demo" (440 + 120 identities, 64 pixels)
            or "large" (333 + 333 identities, 128 pixels, ten minutes on one core).
        seed: another seed gives other vehicles; at least 0.
        data_dir: where the set is kept; default `$DEX_JAX_DATA` or
            `~/.cache/dex_jax`.
        progress: show a progress bar while drawing.
        workers: processes that draw; default one for each core. The images do not
            depend on it.
        in_memory: draw it anew and keep nothing on disk; needs neither
            tensorflow_datasets nor array_record.

    Returns:
        The data set; images are decoded when they are asked for.

    Raises:
        ValueError: an option out of its range, a folder that cannot be written, a
            stored set that is damaged or was made from another recipe.
        ModuleNotFoundError: tensorflow_datasets or array_record is not installed.

    Example:
        >>> data = load_procedural(size="tiny", in_memory=True, progress=False)
        >>> data.query.images[0].shape
        (40, 40, 3)
    """
    recipe = RECIPES[check_choice(size, "size", tuple(RECIPES))]
    seed = check_count(seed, "seed", least=0)
    jobs = plan(recipe, seed)
    content = digest(recipe, jobs)
    if workers is None:
        # The tiny set is drawn before a second process has started.
        workers = 1 if size == "tiny" else _cores()
    workers = check_count(workers, "workers")

    def draw() -> contextlib.AbstractContextManager[Iterator[Drawn]]:
        return _shown(jobs, workers=workers, progress=progress, title=f"{size} set")

    if in_memory:
        readers = _keep(jobs, draw)
    else:
        readers = _open(_folder(data_dir), size, seed, jobs, content, draw)
    return ReidData(
        "procedural_vehicles",
        *(_split([job for job in jobs if job.split == s], readers[s]) for s in SPLITS),
        protocol=Protocol("procedural_vehicles", top=100),
        source=f"procedural_vehicles-{VERSION}-{size}-seed{seed}-{content}",
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folder(data_dir: str | Path | None) -> Path:
    if data_dir is None:
        data_dir = os.environ.get("DEX_JAX_DATA") or Path.home() / ".cache/dex_jax"
    folder = Path(data_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"data_dir: expected a folder, got the file {folder}")
    return folder


def _open(
    folder: Path, size: str, seed: int, jobs: list[Job], content: str, draw: Callable
) -> dict[str, Callable[[int], bytes]]:
    for module in ("tensorflow_datasets", "array_record"):
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"procedural_vehicles is kept on disk by {module}, which is not "
                "installed; install it or pass in_memory=True"
            )
    from dex_jax.data._procedural_store import open_store  # slow to import

    return open_store(
        folder, size=size, seed=seed, jobs=jobs, content=content, draw=draw
    )


def _keep(jobs: list[Job], draw: Callable) -> dict[str, Callable[[int], bytes]]:
    kept: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    with draw() as drawn:
        for job, images in drawn:
            kept[job.split] += images
    return {split: images.__getitem__ for split, images in kept.items()}


def _split(jobs: list[Job], read: Callable[[int], bytes]) -> ReidSplit:
    counts = [len(job.names) for job in jobs]
    names = tuple(name for job in jobs for name in job.names)
    return ReidSplit(
        JpegImages(read, names),
        names,
        np.repeat([job.identity for job in jobs], counts),
        np.repeat([job.camera_id for job in jobs], counts),
        np.repeat([job.tracklet for job in jobs], counts),
    )


class _Rate(ProgressColumn):
    """Images drawn in a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} images/s")


@contextlib.contextmanager
def _shown(
    jobs: list[Job], *, workers: int, progress: bool, title: str
) -> Iterator[Iterator[Drawn]]:
    """Opens the drawn tracklets behind a progress bar; stops the workers after."""
    bar = Progress(
        TextColumn(f"drawing the {title}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    task = bar.add_task("", total=sum(len(job.names) for job in jobs))
    drawn = draw_all(jobs, workers=workers)

    def counted() -> Iterator[Drawn]:
        for job, images in drawn:
            bar.advance(task, len(images))
            yield job, images

    with bar, contextlib.closing(drawn):
        yield counted()
