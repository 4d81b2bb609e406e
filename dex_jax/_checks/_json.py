"""JSON files that anybody may have written or damaged."""

import json
import math
import os
from collections.abc import Iterable
from typing import Any, NoReturn

from dex_jax._checks._files import check_file

_DEPTH = 64
_KINDS = {dict: "an object", list: "a list"}


def read_json(
    path: str | os.PathLike, what: str, *, kind: type = dict, most: int = 2**23
) -> Any:
    """Reads a JSON file within limits; every fault is an error that names the file.

    Beyond JSON's own rules: names of one object differ, numbers are finite, and text
    can be written as UTF-8, so that whatever shows a value can do so.

    Args:
        path: where the file lies.
        what: what the errors call it, such as "config of a run".
        kind: type of the outermost value, `dict` or `list`.
        most: bytes that are read; a longer file is refused. Values take up to 40 times
            the memory of their text.

    Returns:
        The content: dict, list, str, int, float, bool and None.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no plain file, too long, no JSON, nested more than 64 deep, or of
            another kind.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write('{"epochs": 3}')
        ...     file.flush()
        ...     read_json(file.name, "config")
        {'epochs': 3}
    """
    path = check_file(path, what)
    with path.open("rb") as handle:
        raw = handle.read(most + 1)
    try:
        if len(raw) > most:
            raise ValueError(f"it has more than {most} bytes")
        content = json.loads(
            raw.decode(),
            object_pairs_hook=_named_once,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        if not isinstance(content, kind):
            raise ValueError(f"expected {_KINDS[kind]}, got {type(content).__name__}")
        _check_depth(content)
        if b"\\ud" in raw.lower():  # half a pair: no text that a file or screen takes
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"{path}: is no {what}: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: is no {what}: {error}") from None
    return content


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} stands in it twice")
        found[name] = value
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word[:80]} is too large a number")
    return number


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_DEPTH):
        level = [entry for value in level for entry in _entries(value)]
    if any(isinstance(value, (dict, list)) for value in level):
        raise ValueError(f"it is nested more than {_DEPTH} deep")


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
