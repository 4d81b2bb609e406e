"""Labels of people's tables as words that can be compared."""

import re
from collections.abc import Iterable

JUNK = "-1"
# How tables write that there is no label: pandas, numpy, R, databases, spreadsheets.
_NONE = ("", "nan", "<na>", "nat", "none", "null", "n/a", "#n/a", "na")
_WHOLE_FLOAT = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))\.0+")
# More would fill the screen.
_SHOWN = 5


def read_label(text: str) -> str:
    """Returns the word that a cell of a table means; the empty word is no label.

    A column of numbers with a gap becomes one of floating-point numbers in pandas:
    "3.0" is 3, and "nan" is no label. Blanks around these and around -1 are dropped;
    all other words stay as they are.

    Example:
        >>> [read_label(text) for text in ("3.0", "nan", "-1.0", "bus 2", "007")]
        ['3', '', '-1', 'bus 2', '007']
    """
    word = text.strip()
    if word.casefold() in _NONE:
        return ""
    if match := _WHOLE_FLOAT.fullmatch(word):
        return "0" if match[1] == "-0" else match[1]
    return JUNK if word == JUNK else text


def alike(words: Iterable[str]) -> str:
    """Says which different words may be meant as one: blanks, zeros in front.

    Args:
        words: labels of one kind, as `read_label` gives them.

    Returns:
        A phrase for a message; the empty word where there are none.

    Example:
        >>> alike(["1", "0001", "bus", "1 "])
        "'0001', '1' and '1 '"
    """
    groups: dict[str, set[str]] = {}
    for word in words:
        bare = " ".join(word.split())
        bare = re.sub(r"^(-?)0+(?=[0-9]+$)", r"\1", bare)
        groups.setdefault(bare, set()).add(word)
    found = [sorted(group) for group in groups.values() if len(group) > 1]
    shown = [
        f"{', '.join(map(repr, group[:-1]))} and {group[-1]!r}"
        for group in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        shown.append(f"{len(found) - _SHOWN} more")
    return "; ".join(shown)
