"""A grid over one or two options of a chain."""

import inspect
import itertools
import re
from typing import Any, NamedTuple

import numpy as np

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation._paper import TABLES
from dex_jax.evaluation._results import score_chain
from dex_jax.rerank import Graphs, parse, steps


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

    chain: str
    axes: tuple[Axis, ...]

    def chains(self) -> list[str]:
        """Returns the chain of every cell, the last axis running fastest.

        A count such as `k` gets its largest value as `k_max`, unless the chain says
        otherwise: all cells then share their programs and neighbour lists. Not `k1`:
        there the work at the largest value costs more than compiling again.
        """
        return [
            self._with(values)
            for values in itertools.product(*(axis.values for axis in self.axes))
        ]

    def _with(self, values: tuple[float, ...]) -> str:
        chain = self.chain
        for axis, value in zip(self.axes, values, strict=True):
            chain = with_option(chain, axis.step, axis.option, value)
        for axis in self.axes:
            most = f"{axis.option}_max"
            options = inspect.signature(getattr(steps, axis.step)).parameters
            if most in options and axis.option != "k1":
                largest = max(axis.values)
                chain = with_option(chain, axis.step, most, largest, replace=False)
        return chain


class Swept(NamedTuple):
    """The mAP of every cell, `[A]` or `[A, B]`."""

    grid: Grid
    mean_ap: np.ndarray

    def record(self) -> dict[str, Any]:
        """Returns the content of `report.json`."""
        return {
            "chain": self.grid.chain,
            "axes": {axis.name: axis.values for axis in self.grid.axes},
            "mAP": self.mean_ap.tolist(),
        }


def read_sweep(text: str, *, chain: str) -> Grid:
    """Reads axes such as `"diffusion.alpha=0.9,0.95; diffusion.gamma=1,3"`.

    Args:
        text: one or two axes, with `;` between them.
        chain: the chain they change.

    Raises:
        ValueError: another form, a step that is not in the chain, or an option or
            value that the step refuses.

    Example:
        >>> read_sweep("dex.alpha=1,2", chain="dex,dba").chains()
        ['dex(alpha=1),dba', 'dex(alpha=2),dba']
        >>> read_sweep("dex.k=5,9", chain="dex,dba").chains()
        ['dex(k=5,k_max=9),dba', 'dex(k=9,k_max=9),dba']
    """
    if chain in TABLES:
        raise ValueError(f"sweep: needs a chain for --rerank, got {chain!r}")
    parse(chain)
    axes = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        match = re.fullmatch(r"(\w+)\.(\w+)\s*=\s*(.+)", part)
        if match is None:
            raise ValueError(f"sweep: expected step.option=1,2,3, got {part!r}")
        try:
            values = tuple(float(value) for value in match[3].split(","))
        except ValueError:
            raise ValueError(f"sweep: expected numbers in {part!r}") from None
        axes.append(Axis(match[1], match[2], values))
    if not 1 <= len(axes) <= 2:
        raise ValueError(
            f"sweep: expected one or two axes, got {len(axes)} in {text!r}"
        )
    if len({axis.name for axis in axes}) < len(axes):
        raise ValueError(f"sweep: {axes[0].name} is named twice in {text!r}")
    grid = Grid(chain, tuple(axes))
    for cell in grid.chains():
        parse(cell)
    return grid


def with_option(
    chain: str, step: str, option: str, value: float, *, replace: bool = True
) -> str:
    """Sets one option of one step of a chain; one given stays unless `replace`.

    Raises:
        ValueError: the chain has no such step.

    Example:
        >>> with_option("dex(k=5),dba", "dex", "k", 10.0)
        'dex(k=10),dba'
        >>> with_option("dex(k=5),dba", "dex", "k", 10.0, replace=False)
        'dex(k=5),dba'
    """
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", chain)]
    names = [part.partition("(")[0].strip() for part in parts]
    if step not in names:
        raise ValueError(f"sweep: {step!r} is not a step of {chain!r}")
    at = names.index(step)
    inside = parts[at].partition("(")[2].rstrip(")")
    items = [item.strip() for item in inside.split(",") if item.strip()]
    kept = [item for item in items if item.partition("=")[0].strip() != option]
    if len(kept) < len(items) and not replace:
        return chain
    parts[at] = f"{step}({','.join([*kept, f'{option}={value:g}'])})"
    return ",".join(parts)


def sweep(file: EmbeddingFile, grid: Grid, protocol: Protocol) -> Swept:
    """Scores every cell of a grid.

    Traced options, such as alpha, gamma and lambda_, share one compilation, and so do
    counts up to their largest value; the gallery is searched once for each stretch.

    Args:
        file: with identities.
        grid: from `read_sweep`.
        protocol: how it is scored.
    """
    graphs = Graphs()
    cells = [
        score_chain(file, chain, protocol, graphs=graphs).mean_ap
        for chain in grid.chains()
    ]
    shape = [len(axis.values) for axis in grid.axes]
    return Swept(grid, np.array(cells).reshape(shape))
