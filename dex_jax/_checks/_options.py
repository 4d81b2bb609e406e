"""Options: counts, numbers and words."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks._arrays import is_concrete, read_array

# The largest count and the largest number that programs hold.
_INT32 = int(np.iinfo(np.int32).max)
_FLOAT32 = float(np.finfo(np.float32).max)
# Characters of a refused value that an error shows.
_LONGEST = 80


class Count(NamedTuple):
    """A count option such as `k`: how wide lists are, and how much of them counts.

    Attributes:
        width: entries of a list, static.
        value: scalar int32, the first entries that count; None where all of them do.
    """

    width: int
    value: jax.Array | None = None


def check_count(
    value: object, name: str, *, least: int = 1, most: int | None = _INT32
) -> int:
    """Reads a static whole number such as `k`; one entry of an array is one too.

    `most` is what int32 holds, the type that counts have in programs; None, for a
    number that no program sees, is no limit.

    Raises:
        ValueError: not an integer, below `least` or above `most`.
    """
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        value = value.item() if is_concrete(value) else value
    # Times are integers to numpy.
    number = None
    if isinstance(value, (int, np.integer)) and not isinstance(
        value, (bool, np.timedelta64)
    ):
        number = int(value)
    if number is None:
        raise ValueError(f"{name}: expected a whole number, got {_shown(value)}")
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}")
    return number


def check_masked_count(value: object, most: object, name: str) -> Count:
    """Reads a count and its static maximum, which if given lets the count be traced.

    Raises:
        ValueError: not whole numbers of at least 1, a count above its maximum, or a
            traced one without (its value is not looked at).
    """
    if not is_concrete(value):
        if most is None:
            raise ValueError(
                f"{name}: sets a shape and is traced; give {name}_max, the largest "
                "value it may take"
            )
        traced = jnp.asarray(value)
        if traced.shape != () or not jnp.issubdtype(traced.dtype, jnp.integer):
            raise ValueError(
                f"{name}: expected one whole number, got {traced.dtype} of shape "
                f"{traced.shape}"
            )
        width = check_count(most, f"{name}_max")
        return Count(width, traced.astype(jnp.int32))
    if most is None:
        return Count(check_count(value, name))
    number, width = check_count(value, name), check_count(most, f"{name}_max")
    if number > width:
        raise ValueError(f"{name}: expected at most {name}_max={width}, got {number}")
    return Count(width, jnp.asarray(number, jnp.int32))


def check_number(
    value: object,
    name: str,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    below: float | None = None,
    most: float = _FLOAT32,
) -> Any:
    """Reads an option that is a real number in range.

    The number has to be finite in float32; `most=inf` lets infinity pass. The bounds
    `least` and `most` belong to the range, `above` and `below` do not. Of traced
    numbers type and shape are checked alone.

    Returns:
        A Python float, which no compiled program finds too large, as it does large
        integers; traced numbers as they are.

    Raises:
        ValueError: not one number, or out of range.
    """
    number = _read_number(value)
    if number is not None and not is_concrete(number):
        return number
    x = np.nan if number is None else float(number)
    # The range is that of float32, in which programs compute: 1 - 1e-9 is 1 there.
    with np.errstate(over="ignore", under="ignore"):
        narrow = float(np.float32(x))
    # NaN fails every comparison.
    inside = np.float32(least) <= narrow <= np.float32(most) and above < narrow
    inside &= np.isfinite(narrow) or not np.isfinite(x)  # not beyond float32
    if not inside or (below is not None and narrow >= below):
        lower = "" if above == -np.inf else f" above {above}"
        lower = lower if least == -np.inf else f" of at least {least}"
        upper = "" if below is None else f" below {below}"
        upper = upper if most >= _FLOAT32 else f" at most {most}"
        bounds = f"{lower} and{upper}" if lower and upper else lower + upper
        size = ""
        if np.isfinite(x) and np.isinf(narrow):
            size = ", which float32 cannot hold"
        elif narrow != x and narrow in (below, above):
            size = f", which is {narrow} in float32"
        shown = _shown(value)
        raise ValueError(f"{name}: expected a number{bounds}, got {shown}{size}")
    return x


def check_flag(value: object, name: str) -> bool:
    """Reads True or False.

    Raises:
        ValueError: anything else, numbers too.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {_shown(value)}")
    return bool(value)


def _read_number(value: object) -> jax.Array | np.ndarray | None:
    """One real number as an array; None for all else, such as text or None."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = np.float64(value) if abs(value) < 2**1000 else np.float64(np.inf)
    try:
        number = read_array(value, "number")
    except ValueError:
        return None
    dtype = number.dtype
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    return number if real and number.shape == () else None


def _shown(value: object) -> str:
    """A value as text of a length that fits an error message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Reads one of several words.

    Raises:
        ValueError: another word.
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {allowed}, got {_shown(value)}")
    return value
