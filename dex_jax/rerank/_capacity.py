"""Sizes of arrays that depend on data: measured, remembered, and checked.

A compiled program needs fixed sizes, and the worst case is far larger than what data
usually need. So sizes are measured once for given shapes and options and remembered.
Later calls run with them and return how much was needed; where that was more, the
result is thrown away, and sizes are measured anew.
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
    """Calls `run` with sizes that fit its data.

    Args:
        key: what the sizes depend on beside the data: shapes and options.
        measure: finds sizes that fit, by trying; it may wait for the device.
        run: from sizes to the result and the sizes that it needed, `[n]` int32. Where
            these are more, the result is wrong.

    Returns:
        The result, made with sizes that were enough.
    """
    with _lock:
        sizes = _fitted.get(key)
    if sizes is not None:
        result, needed = run(sizes)
        # The first wait for the device: all of the work has been dispatched by now.
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
    # Four sizes from each power of two to the next: less than a quarter is wasted.
    step = 2 ** max(2, size.bit_length() - 3)
    return min(worst, max(step, -(-size // step) * step))
