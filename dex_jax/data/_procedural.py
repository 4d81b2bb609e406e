"""The embedded data set: drawn once from a seed, kept, and read like any other."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
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
from dex_jax.data._hold_out import REAL
from dex_jax.data._images import EncodedImages
from dex_jax.data._records import Protocol, ReidData, ReidSplit
from dex_jax.data._store import Contents, Place, Record, open_store
from dex_jax.procedural import (
    RECIPES,
    SPLITS,
    VERSION,
    Drawn,
    Job,
    digest,
    draw_all,
    plan,
)

NAME = "procedural_vehicles"

Draw = Callable[[], AbstractContextManager[Iterator[Drawn]]]


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
    seed = check_count(seed, "seed", least=0, most=None)
    jobs = plan(recipe, seed)
    content = digest(recipe, jobs)
    if workers is None:
        # The tiny set is drawn before a second process has started.
        workers = 1 if size == "tiny" else _cores()
    workers = check_count(workers, "workers")

    def draw() -> AbstractContextManager[Iterator[Drawn]]:
        return _shown(jobs, workers=workers, progress=progress, title=f"{size} set")

    splits = {s: [job for job in jobs if job.split == s] for s in SPLITS}
    if in_memory:
        images = _keep(splits, draw)
    else:
        label = size if seed == 0 else f"{size}-seed{seed}"
        place = Place(_folder(data_dir), NAME, label, VERSION)
        images = _open(place, splits, content, draw)
    return ReidData(
        NAME,
        *(_split(splits[s], images[s]) for s in SPLITS),
        protocol=Protocol(NAME, top=100),
        source=f"{NAME}-{VERSION}-{size}-seed{seed}-{content}",
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
    place: Place, splits: dict[str, list[Job]], content: str, draw: Draw
) -> dict[str, EncodedImages]:
    @contextlib.contextmanager
    def fill() -> Iterator[Contents]:
        with draw() as drawn:
            records = {s: _records(drawn, len(jobs)) for s, jobs in splits.items()}
            yield Contents({"digest": content}, records)

    store = open_store(place, fill, instead="pass in_memory=True")
    made_from = store.metadata.get("digest")
    if made_from != content:
        raise ValueError(
            f"{place.folder}: holds the set of another recipe ({made_from}, expected "
            f"{content}); delete that folder and load again"
        )
    return {s: store.images(s, _names(jobs)) for s, jobs in splits.items()}


def _records(drawn: Iterator[Drawn], tracklets: int) -> Iterator[Record]:
    """Takes so many tracklets, the next ones to be drawn."""
    for job, images in itertools.islice(drawn, tracklets):
        for name, image in zip(job.names, images, strict=True):
            yield Record(image, job.identity, job.camera_id, job.tracklet, REAL, name)


def _keep(splits: dict[str, list[Job]], draw: Draw) -> dict[str, EncodedImages]:
    with draw() as drawn:
        kept = {
            s: [record.image for record in _records(drawn, len(jobs))]
            for s, jobs in splits.items()
        }
    return {
        s: EncodedImages(kept[s].__getitem__, _names(jobs), NAME)
        for s, jobs in splits.items()
    }


def _names(jobs: list[Job]) -> tuple[str, ...]:
    return tuple(name for job in jobs for name in job.names)


def _split(jobs: list[Job], images: EncodedImages) -> ReidSplit:
    counts = [len(job.names) for job in jobs]
    return ReidSplit(
        images,
        _names(jobs),
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
