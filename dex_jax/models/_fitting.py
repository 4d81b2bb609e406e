"""Where in a file's names a backbone begins.

Frameworks put their own words before the names of a backbone (`module.backbone.`) and
hold other tensors beside it. The backbone is where most of its names follow one prefix.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Of the names of the best prefix, the share from which another is a rival.
RIVAL = 0.9
# Copies of one network that are compared; each takes as long as reading it.
MOST_RIVALS = 1_000


class Fit(NamedTuple):
    """Names of a backbone that follow one prefix of a file."""

    dialect: str
    prefix: str
    """With its last dot; "" where names stand bare."""
    names: int
    """How many of them."""


def find_fits(
    wanted: Mapping[str, Collection[str]], available: Collection[str]
) -> list[Fit]:
    """Every dialect and prefix under which a wanted name is found, best first.

    Args:
        wanted: names of the backbone's tensors by dialect.
        available: names in the file.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for dialect, names in wanted.items():
        known = set(names)
        dots = max(name.count(".") for name in known)
        for name in available:
            # No more pieces than a wanted name has: a file may hold any name.
            pieces = name.rsplit(".", dots + 1)
            for first in range(max(0, len(pieces) - dots - 1), len(pieces)):
                end = ".".join(pieces[first:])
                if end in known:
                    counts[dialect, name.removesuffix(end)] += 1
    return [Fit(*key, count) for key, count in counts.most_common()]


def choose(
    fits: Sequence[Fit],
    wanted: Mapping[str, Collection[str]],
    tensors: Mapping[str, np.ndarray],
    prefix: str | None,
) -> Fit | None:
    """The fit that is meant, None where no name fits.

    Args:
        fits: of `find_fits`.
        wanted: as for `find_fits`.
        tensors: of the file.
        prefix: the caller's choice, with or without its last dot.

    Raises:
        ValueError: another network in the file fits as well and holds other values, or
            nothing fits behind the caller's choice.
    """
    if prefix is not None:
        dotted = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
        for fit in fits:
            if fit.prefix == dotted:
                return fit
        there = ", ".join(repr(p) for p in dict.fromkeys(f.prefix for f in fits[:8]))
        raise ValueError(
            f"prefix: no name of this network follows {prefix!r}; prefixes that some "
            f"of them follow: {there or 'none'}"
        )
    if not fits:
        return None
    rivals: dict[str, Fit] = {}
    for fit in fits:
        if fit.names >= RIVAL * fits[0].names:
            rivals.setdefault(fit.prefix, fit)
    best, *others = rivals.values()
    few = len(others) <= MOST_RIVALS
    if few and all(_same(best, other, wanted, tensors) for other in others):
        return best
    why = "their values differ" if few else f"at most {MOST_RIVALS:,} are compared"
    listed = ", ".join(repr(each) for each in list(rivals)[:8])
    raise ValueError(
        f"tensors: {len(rivals)} networks in the file fit equally well, under {listed} "
        f"(a teacher and its student?), and {why}; "
        f"load_torch_weights(..., prefix={best.prefix!r}) takes that one, "
        "docs/models.md shows how a file of one of them is written"
    )


def _same(
    one: Fit,
    other: Fit,
    wanted: Mapping[str, Collection[str]],
    tensors: Mapping[str, np.ndarray],
) -> bool:
    """Whether two fits hold one network, value for value."""
    if one.dialect != other.dialect:
        return False
    for name in set(wanted[one.dialect]):
        a, b = (tensors.get(f"{fit.prefix}{name}") for fit in (one, other))
        if a is None or b is None:
            if a is not b:
                return False
        elif not np.array_equal(a, b):
            return False
    return True
