"""Sizes of arrays that depend on data: guessed, checked, and remembered.

A compiled program needs fixed sizes, and the largest that data could ask for are far
beyond what they do. So a size is tried; where the data needed more the result is thrown
away and made again. What fitted is remembered for shapes and options: later calls start
with it, and look at what was needed only once all work has been handed to the device.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import numpy as np

Result = TypeVar("Result")
Sizes = TypeVar("Sizes", bound=tuple[int, ...])

_fitted: dict[Hashable, Any] = {}
_lock = threading.Lock()


def exact(
    key: Hashable,
    measure: Callable[[], Sizes],
    run: Callable[[Sizes], tuple[Result, jax.Array]],
) -> Result:
    """Runs something in sizes that fit its data.

    Args:
        key: what the sizes depend on beside the data: shapes and options.
        measure: finds sizes that fit, by trying; it may wait for the device.
        run: from sizes to the result and the sizes that it needed, `[n]` int32. Where
            these are more, the result is wrong.
    """
    with _lock:
        sizes = _fitted.get(key)
    if sizes is not None:
        result, needed = run(sizes)
        if np.all(np.asarray(needed) <= np.asarray(sizes)):
            return result
    sizes = measure()
    with _lock:
        _fitted[key] = sizes
    return run(sizes)[0]


def forget() -> None:
    """Forgets all sizes; the next calls measure again."""
    with _lock:
        _fitted.clear()


def round_up(size: int, worst: int) -> int:
    """The next of few sizes, at most `worst`, so that similar data share programs."""
    step = 2 ** max(2, size.bit_length() - 3)
    return min(worst, max(step, -(-size // step) * step))
