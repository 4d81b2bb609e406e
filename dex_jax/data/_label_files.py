"""Label files as they lie on people's disks: lists, tracks and XML, read safely."""

import re
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

import numpy as np

from dex_jax._checks import check_file
from dex_jax.data._problems import Problems

# The label files of the largest published sets have a hundredth of this.
MOST_BYTES = 1 << 30


class Line(NamedTuple):
    """One line of a text file: its number from 1 and its fields."""

    number: int
    fields: list[str]


class Item(NamedTuple):
    """One labelled image of an XML file: its line and its attributes."""

    line: int
    attributes: dict[str, str]


def read_whole(path: Path, what: str = "label file") -> bytes:
    """Reads a file of labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a pipe, or more than 1 GiB.
    """
    size = check_file(path, what).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path}: {what} of {size:,} bytes, at most {MOST_BYTES:,}")
    return path.read_bytes()


def read_lines(path: Path, *, blank: bool = False, separator: str = "") -> list[Line]:
    """Reads fields line by line, whatever the line ends and trailing blanks.

    Args:
        path: a text file, UTF-8 (with or without byte order mark) or GB 18030.
        blank: keep empty lines, for files where the line number means something.
        separator: between fields; the empty word is any run of blanks.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read as one.
    """
    raw = read_whole(path)
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
        ValueError: it cannot be read as one.
    """
    raw = read_whole(path)
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


def read_numbers(path: Path) -> np.ndarray:
    """Reads a table of numbers, float64 `[N, M]`, between blanks or commas.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a field is no number, or the lines have different lengths.
    """
    rows: list[list[float]] = []
    for line in read_lines(path):
        fields = " ".join(line.fields).replace(",", " ").split()
        try:
            rows.append([float(field) for field in fields])
        except ValueError:
            shown = " ".join(fields)[:80]
            raise ValueError(
                f"{path}, line {line.number}: not a table of integers: {shown!r}"
            ) from None
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(
                f"{path}, line {line.number}: {len(rows[-1])} numbers, the first line "
                f"has {len(rows[0])}"
            )
    return np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)


def whole_number(text: str) -> int | None:
    """Reads digits, as in "0034", "12" or "12.0"; None for all else and beyond 18."""
    match = re.fullmatch(r"([0-9]{1,18})(?:\.0*)?", text)
    return int(match[1]) if match else None
