"""Arrays of any framework, as they are read at the public border."""

from jax.core import Tracer


def is_concrete(*arrays: object) -> bool:
    """Whether no array is a tracer, so that values may be looked at."""
    return not any(isinstance(array, Tracer) for array in arrays)
