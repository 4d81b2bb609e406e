"""What a step was asked for, kept for the text of a chain."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

import jax
import numpy as np

from dex_jax._checks import is_concrete, on_any_mesh
from dex_jax.rerank._kinds import Expand, Rank, Refine

_P = ParamSpec("_P")
_S = TypeVar("_S", Expand, Rank, Refine)


def noted(make: Callable[_P, _S]) -> Callable[_P, _S]:
    """Makes steps keep their options that differ from the defaults, for their text."""
    signature = inspect.signature(make)
    defaults = {name: p.default for name, p in signature.parameters.items()}

    @on_any_mesh
    @functools.wraps(make)
    def made(*args: _P.args, **options: _P.kwargs) -> _S:
        step = make(*args, **options)
        given = signature.bind(*args, **options).arguments
        # A step that was given its default is the same as one that was not.
        plain = {name: _plain(value) for name, value in given.items()}
        asked = [(n, v) for n, v in plain.items() if not _same(v, defaults[n])]
        return replace(step, options=tuple(asked))

    return made


def _plain(value: object) -> object:
    """The number of a scalar array, such as an entry of a grid; all else unchanged."""
    # A traced scalar has no number to show.
    if isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0:
        return value.item() if is_concrete(value) else value
    return value


def _same(value: object, default: object) -> bool:
    """Whether an option has its default; an array, not compared by value, never has."""
    if isinstance(value, int | float | str):
        return value == default
    return value is default
