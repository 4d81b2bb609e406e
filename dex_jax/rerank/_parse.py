"""Chains from text, such as `--rerank` on the command line takes."""

import ast
import inspect
import re
from collections.abc import Callable

from dex_jax.rerank import steps
from dex_jax.rerank._chain import Pipeline, chain
from dex_jax.rerank._kinds import Step

# Steps by the names that `parse` knows.
_STEPS: dict[str, Callable[..., Step]] = {
    "aqe": steps.aqe,
    "alpha_qe": steps.alpha_qe,
    "dex": steps.dex,
    "dba": steps.dba,
    "tracklet_means": steps.tracklet_means,
    "cosine": steps.cosine,
    "k_reciprocal": steps.k_reciprocal,
    "tracklet_k_reciprocal": steps.tracklet_k_reciprocal,
    "diffusion": steps.diffusion,
    "tracklet": steps.tracklet,
}


def parse(text: str) -> Pipeline:
    """Reads a chain from text such as "dex(k=10),dba,k_reciprocal,tracklet".

    Args:
        text: names of steps, with options in brackets where they differ from the
            paper's values; "none" is plain cosine similarity.

    Returns:
        The pipeline, as `chain` makes it.

    Raises:
        ValueError: text of another form, or an unknown name, option or value; names
            the step, the option and what is allowed.

    Example:
        >>> import jax.numpy as jnp
        >>> from dex_jax.rerank import Embeddings
        >>> gallery = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> parse("alpha_qe(k=1)")(Embeddings(gallery[:1], gallery), top=1).ids
        Array([[0]], dtype=int32)
    """
    if text.strip() == "none":
        return chain()
    # A comma separates steps unless it stands inside brackets.
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
    return chain(*[_parse_step(part) for part in parts])


def _parse_step(part: str) -> Step:
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", part)
    if match is None:
        raise ValueError(f"rerank: cannot read {part!r}; expected name or name(k=10)")
    name, inside = match.groups()
    if name not in _STEPS:
        raise ValueError(
            f"rerank: unknown step {name!r}; allowed are none, {', '.join(_STEPS)}"
        )
    allowed = list(inspect.signature(_STEPS[name]).parameters)
    options = {}
    for item in filter(None, (i.strip() for i in (inside or "").split(","))):
        key, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals or key not in allowed:
            raise ValueError(
                f"rerank: {name} has no option {item!r}; allowed are "
                + (", ".join(f"{a}=" for a in allowed) or "none")
            )
        if key in options:
            raise ValueError(f"rerank: {name} has the option {key!r} twice")
        options[key] = _parse_value(value)
    try:
        return _STEPS[name](**options)
    except ValueError as error:
        raise ValueError(f"rerank: {name}: {error}") from None


def _parse_value(text: str) -> int | float | str:
    """A number where it reads as one, otherwise a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.strip("'\"")
