"""How much the compiler does, for tests that ask what a program does, not how fast."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

# The same for processes that a test starts.
QUICK_PROGRAMS = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@contextmanager
def optimised(wanted: bool) -> Iterator[None]:
    """Compiles inside with or without the optimisations of machine code.

    They take half of the time that compiling takes. Without them a program has the
    same steps, but rounds otherwise here and there.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not wanted)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
