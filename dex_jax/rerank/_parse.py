"""Chains from text, as `evaluate.py --rerank` takes it.

The text is matched by two patterns, of a step and of an option; `chain` and the steps
themselves check what was read.
"""

import re

from dex_jax.rerank import steps
from dex_jax.rerank._chain import Pipeline, allowed, chain, make_step
from dex_jax.rerank._kinds import Step

# Steps whose options are numbers and words; the others take arrays.
_NAMES = (
    "aqe",
    "alpha_qe",
    "dex",
    "dba",
    "tracklet_means",
    "cosine",
    "k_reciprocal",
    "tracklet_k_reciprocal",
    "diffusion",
    "tracklet",
)
_TRUTH = {"True": True, "False": False}
_LONGEST = 10_000  # characters
# Each pattern matches one item and the comma or end of text behind it: a step with the
# inside of its brackets, and an option with a number or a word, quoted or not.
_STEP = re.compile(r"\s*([\w-]+)\s*(?:\(([^()]*)\)\s*)?(?:,|\Z)", re.ASCII)
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_WORD = r"(['\"]?)([A-Za-z_]\w*)\3"
_OPTION = re.compile(rf"\s*([\w-]+)\s*=\s*(?:({_NUMBER})|{_WORD})\s*(?:,|\Z)", re.ASCII)


def parse(text: str) -> Pipeline:
    """Reads a chain from text such as "dex(k=10),dba,k_reciprocal,tracklet".

    Args:
        text: names of steps, with options in brackets where they differ from the
            paper's values, 10,000 characters at most; "none" is plain cosine
            similarity.

    Returns:
        The pipeline, as `chain` makes it. Its own text is the shortest for the same:
        `cosine`, which ranks where no other step does, and defaults are left out.

    Raises:
        ValueError: text of another form, or an unknown name, option or value; names
            the step, the option and what is allowed.

    Example:
        >>> parse(" dex( k=10, alpha=2.0 ), cosine"), parse("cosine")
        (dex(k=10), none)
    """
    try:
        if not isinstance(text, str):
            raise ValueError(f"expected text such as dex,dba, got {text!r}")
        if len(text) > _LONGEST:
            raise ValueError(f"expected at most {_LONGEST} characters, got {len(text)}")
        if text.strip() == "none":
            return chain()
        form = "steps such as dex(k=10),dba without brackets in brackets"
        return chain(*[_read_step(*found) for found in _items(_STEP, text, form)])
    except ValueError as error:
        raise ValueError(f"rerank: {error}") from None


def _items(pattern: re.Pattern[str], text: str, form: str) -> list[tuple[str, ...]]:
    """Reads items with commas between them, to the end of the text."""
    found: list[re.Match[str]] = []
    while not found or found[-1][0].endswith(","):
        at = found[-1].end() if found else 0
        match = pattern.match(text, at)
        if match is None:
            rest = text[at:].strip()[:40]
            raise ValueError(
                f"expected {form}, got {repr(rest) if rest else 'nothing'}"
            )
        found.append(match)
    return [match.groups("") for match in found]


def _read_step(name: str, inside: str) -> Step:
    if name == "none":
        raise ValueError("none is the chain without steps and must stand alone")
    if name not in steps.__all__:
        raise ValueError(f"unknown step {name!r}; {allowed(name, ('none', *_NAMES))}")
    if name not in _NAMES or inside.strip() == "...":
        raise ValueError(
            f"{name}(...) holds arrays or traced values, which text cannot; compose "
            "such a chain of rerank.steps"
        )
    options: dict[str, int | float | str] = {}
    form = f"options of {name} that are numbers or words, such as k=10"
    items = _items(_OPTION, inside, form) if inside.strip() else []
    for option, number, _, word in items:
        if option in options:
            raise ValueError(f"{name} has the option {option!r} twice")
        # The step's own error says where a number is too large for it.
        whole = number.lstrip("+-").isdigit() and len(number) < 19
        if word:
            options[option] = _TRUTH.get(word, word)
        else:
            options[option] = int(number) if whole else float(number)
    return make_step(name, options)
