"""Options: counts, numbers and words."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dex_jax._checks._arrays import is_concrete


class Count(NamedTuple):
    """A count option such as `k`: how wide lists are, and how much of them counts.

    Attributes:
        width: entries of a list, static.
        value: scalar int32, the first entries that count; None where all of them do.
    """

    width: int
    value: jax.Array | None = None


def check_count(value: object, name: str, *, least: int = 1) -> int:
    """Reads a static whole number such as `k`.

    Raises:
        ValueError: not an integer, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: expected a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


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
    # One entry of an array of counts is a count too.
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        value = value.item()
    number, width = check_count(value, name), check_count(most, f"{name}_max")
    if number > width:
        raise ValueError(f"{name}: expected at most {name}_max={width}, got {number}")
    return Count(width, jnp.asarray(number, jnp.int32))


def check_number(
    value: object, name: str, *, least: float = -np.inf, below: float = np.inf
) -> None:
    """Refuses an option that is no number in `[least, below)`; traced ones pass.

    Raises:
        ValueError: not one number, or out of range.
    """
    if not is_concrete(value):
        return
    number = np.asarray(value)
    real = number.dtype.kind in "fiu" or number.dtype == jnp.bfloat16
    if number.shape != () or not real or not least <= float(number) < below:
        upper = "" if below == np.inf else f" and below {below}"
        lower = "" if least == -np.inf else f" of at least {least}"
        raise ValueError(f"{name}: expected a number{lower}{upper}, got {value!r}")


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Reads one of several words.

    Raises:
        ValueError: another word.
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
    return value
