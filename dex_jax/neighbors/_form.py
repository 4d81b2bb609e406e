"""Which of two forms the kernels take: one for CPUs, one for accelerators.

A CPU works fastest on tiles that stay in its caches, with loops that stop when the data
allow it. An accelerator wants few large kernels and no loop whose length depends on
data, since the host reads the condition of such a loop back at every trip. Both forms
give the same neighbours; scores differ by rounding.
"""

import os
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

import jax

from dex_jax._checks import check_choice

Value = TypeVar("Value")

FORMS = ("cpu", "wide")
VARIABLE = "DEX_JAX_FORM"

# A user context is part of the key under which jax.jit keeps compiled programs: a
# function that was traced in one form is traced again in the other.
_forced: Any = jax.make_user_context(None)


def form(name: Literal["cpu", "wide"]) -> AbstractContextManager[None]:
    """Forces the form of all kernels that are called inside a `with` block.

    Without it the environment variable `DEX_JAX_FORM` decides, and without that the
    default backend: "cpu" on a CPU, "wide" on everything else. Either form runs on any
    backend and gives the same neighbours; scores differ by rounding. The variable is
    read when a program is traced: set it before the first call.

    Args:
        name: "cpu", small tiles; or "wide", few large kernels.

    Returns:
        A context manager; the form before it holds again after it.

    Raises:
        ValueError: another word, here or in the environment variable.

    Example:
        >>> import jax.numpy as jnp
        >>> from dex_jax.neighbors import form, nearest_neighbors
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> with form("wide"):
        ...     nearest_neighbors(rows, rows, k=1).ids.tolist()
        [[0], [1]]
    """
    return _forced(check_choice(name, "form", FORMS))


def is_wide() -> bool:
    """Whether the program that is being traced takes the wide form."""
    name = _forced.value
    if name is None:
        name = os.environ.get(VARIABLE)
    if name is None:
        return jax.default_backend() != "cpu"
    return check_choice(name, VARIABLE, FORMS) == "wide"


def by_form(*, cpu: Value, wide: Value) -> Value:
    """One of two values, such as block sizes, by the form that is being traced."""
    return wide if is_wide() else cpu
