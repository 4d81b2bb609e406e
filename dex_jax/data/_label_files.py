"""Label files as they lie on people's disks: lists, tracks and XML, read safely."""

import re
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from dex_jax.data._problems import Problems


class Line(NamedTuple):
    """One line of a text file: its number from 1 and its fields."""

    number: int
    fields: list[str]


class Item(NamedTuple):
    """One labelled image of an XML file: its line and its attributes."""

    line: int
    attributes: dict[str, str]


def read_lines(path: Path, *, blank: bool = False, separator: str = "") -> list[Line]:
    """Reads fields line by line, whatever the line ends and trailing blanks.

    Args:
        path: a text file, UTF-8 (with or without byte order mark) or GB 18030.
        blank: keep empty lines, for files where the line number means something.
        separator: between fields; the empty word is any run of blanks.

    Raises:
        FileNotFoundError: no such file.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("gb18030", errors="replace")
    lines = [
        Line(number, line.strip().split(separator or None))
        for number, line in enumerate(text.splitlines(), start=1)
    ]
    return lines if blank else [line for line in lines if any(line.fields)]


def read_items(path: Path, problems: Problems) -> list[Item]:
    """Reads the `Item` elements of a label file in the AI City form.

    The header of the published files names gb2312, which Python's own XML readers
    refuse, and some copies were changed to utf-8 by hand: the bytes are transcoded
    here. Document type declarations, and with them entities, are refused.

    Args:
        path: the XML file.
        problems: takes what is wrong with the file.

    Raises:
        FileNotFoundError: no such file.
    """
    raw = path.read_bytes()
    header = re.match(rb"""[^>]*encoding=["']([\w-]+)""", raw[:200])
    named = header.group(1).decode().lower() if header else "utf-8"
    text = raw.decode("gb18030" if named.startswith("gb") else "utf-8", "replace")
    items: list[Item] = []
    parser = expat.ParserCreate("utf-8")

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "Item":
            items.append(Item(parser.CurrentLineNumber, attributes))

    def refuse(*_: object) -> None:
        raise ValueError("a document type declaration is not read")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except (expat.ExpatError, ValueError) as error:
        problems.add(f"not a label file ({error})", path, line=parser.CurrentLineNumber)
    return items


def whole_number(text: str) -> int | None:
    """Reads digits, as in "0034" or "12"; None for all else and beyond 18 digits."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
