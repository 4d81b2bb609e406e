"""A grid over one or two options of a chain."""

import inspect
import itertools
import re
from typing import Any, NamedTuple

import numpy as np

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._results import score_chain
from dex_jax.rerank import NeighborCache, Pipeline, steps


class Axis(NamedTuple):
    """One option of one step and the values it takes."""

    step: str
    option: str
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """What the axis is called."""
        return f"{self.step}.{self.option}"


class Grid(NamedTuple):
    """A chain and one or two axes."""

    pipeline: Pipeline
    axes: tuple[Axis, ...]

    def pipelines(self) -> list[Pipeline]:
        """Returns the chain of every cell, the last axis running fastest.

        A count such as `k` gets its largest value as `k_max`, unless the chain says
        otherwise: all cells then share their programs and neighbour lists. Not `k1`:
        there the work at the largest value costs more than compiling again.
        """
        return [
            self._with(values)
            for values in itertools.product(*(axis.values for axis in self.axes))
        ]

    def _with(self, values: tuple[float, ...]) -> Pipeline:
        pipeline = self.pipeline
        for axis, value in zip(self.axes, values, strict=True):
            pipeline = pipeline.with_option(axis.step, axis.option, value)
        for axis in self.axes:
            most = f"{axis.option}_max"
            options = inspect.signature(getattr(steps, axis.step)).parameters
            if most in options and axis.option != "k1":
                largest = max(axis.values)
                pipeline = pipeline.with_option(axis.step, most, largest, replace=False)
        return pipeline


class Swept(NamedTuple):
    """The mAP of every cell, `[A]` or `[A, B]`."""

    grid: Grid
    mean_ap: np.ndarray

    def record(self) -> dict[str, Any]:
        """Returns the content of `report.json`."""
        return {
            "chain": str(self.grid.pipeline),
            "axes": {axis.name: axis.values for axis in self.grid.axes},
            "mAP": self.mean_ap.tolist(),
        }


def read_sweep(text: str, rerank: Pipeline | str) -> Grid:
    """Reads axes such as `"diffusion.alpha=0.9,0.95; diffusion.gamma=1,3"`.

    Args:
        text: one or two axes, with `;` between them.
        rerank: the chain they change; the name of a table is refused.

    Raises:
        ValueError: another form, a step that is not in the chain, or an option or
            value that the step refuses.

    Example:
        >>> from dex_jax.rerank import parse
        >>> read_sweep("dex.alpha=1,3", parse("dex,dba")).pipelines()
        [dex(alpha=1),dba, dex(alpha=3),dba]
        >>> read_sweep("dex.k=5,9", parse("dex")).pipelines()
        [dex(k=5,k_max=9), dex(k=9,k_max=9)]
    """
    if isinstance(rerank, str):
        raise ValueError(f"sweep: needs a chain for --rerank, got {rerank!r}")
    axes = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        match = re.fullmatch(r"(\w+)\.(\w+)\s*=\s*(.+)", part)
        if match is None:
            raise ValueError(f"sweep: expected step.option=1,2,3, got {part!r}")
        try:
            values = tuple(_number(value) for value in match[3].split(","))
        except ValueError:
            raise ValueError(f"sweep: expected numbers in {part!r}") from None
        axes.append(Axis(match[1], match[2], values))
    if not 1 <= len(axes) <= 2:
        raise ValueError(
            f"sweep: expected one or two axes, got {len(axes)} in {text!r}"
        )
    if len({axis.name for axis in axes}) < len(axes):
        raise ValueError(f"sweep: {axes[0].name} is named twice in {text!r}")
    grid = Grid(rerank, tuple(axes))
    try:
        grid.pipelines()
    except ValueError as error:
        raise ValueError(f"sweep: {error}") from None
    return grid


def _number(text: str) -> float:
    """A number, whole where it may stand for a count."""
    number = float(text)
    return int(number) if number.is_integer() else number


def sweep(file: EmbeddingFile, grid: Grid, protocol: Protocol) -> Swept:
    """Scores every cell of a grid.

    Traced options, such as alpha, gamma and lambda_, share one compilation, and so do
    counts up to their largest value; the gallery is searched once for each stretch.

    Args:
        file: with identities.
        grid: from `read_sweep`.
        protocol: how it is scored.
    """
    cache = NeighborCache()
    cells = [
        score_chain(file, pipeline, protocol, cache=cache).mean_ap
        for pipeline in grid.pipelines()
    ]
    shape = [len(axis.values) for axis in grid.axes]
    return Swept(grid, np.array(cells).reshape(shape))
