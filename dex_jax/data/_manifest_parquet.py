"""A manifest as a Parquet file: columns with types, which pandas chooses."""

import importlib.util
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dex_jax._checks import check_file, most_expanded
from dex_jax.data._label_files import MOST_BYTES, Line
from dex_jax.data._problems import Problems

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, DataType, Schema

_MOST_ROWS = 20_000_000
# So many rows may a file have in any case, and beyond that so many for each byte: no
# two of them have one path.
_FREE_ROWS, _ROWS_A_BYTE = 100_000, 4
CheckHeader = Callable[[Path, int, list[str], Problems], None]


def read_parquet(
    path: Path, problems: Problems, check_header: CheckHeader
) -> tuple[list[str], list[Line]]:
    """Reads the columns of a manifest; those that begin with `x_` are left out.

    Labels are words, whole numbers, or floating-point numbers without a fraction; null
    and NaN are no label, the empty word.

    Args:
        path: the table.
        problems: takes what is wrong with it.
        check_header: checks the names of the columns.

    Returns:
        The names of the columns, and the rows, numbered like the lines of the same
        table in CSV.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no Parquet file, too large, or has columns of other types.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path}: reading Parquet needs the package pyarrow; install it or write "
            "the same table as .csv"
        )
    from pyarrow import parquet

    check_file(path, "manifest")
    try:
        with parquet.ParquetFile(path) as file:
            schema, sizes = file.schema_arrow, file.metadata
            check_header(path, 1, list(schema.names), problems)
            names = [name for name in schema.names if not name.startswith("x_")]
            _check_types(path, schema, names, problems)
            _check_size(path, sizes)
        # A word that stands in every row stays one word, as it is in the file.
        with parquet.ParquetFile(path, read_dictionary=names) as file:
            table = file.read(names, use_threads=False)
            columns = {name: _values(table.column(name)) for name in names}
    except (FileNotFoundError, ValueError) as error:
        if str(path) in str(error):
            raise
        raise _unreadable(path, error) from error
    # The package raises whatever a damaged file makes it stumble over.
    except Exception as error:
        raise _unreadable(path, error) from error
    words = [
        [_word(path, name, row, value, problems) for row, value in enumerate(column, 2)]
        for name, column in columns.items()
    ]
    rows = enumerate(zip(*words, strict=True), start=2)
    return names, [Line(number, list(fields)) for number, fields in rows]


def _values(column: "ChunkedArray") -> list[Any]:
    """The values of a column; equal words of a dictionary are one object."""
    values: list[Any] = []
    for chunk in column.chunks:
        words, places = None, chunk
        if hasattr(chunk, "dictionary"):
            words, places = chunk.dictionary.to_pylist(), chunk.indices
        for value in places.to_pylist():
            values.append(value if words is None or value is None else words[value])
    return values


def _unreadable(path: Path, error: Exception) -> ValueError:
    why = " ".join(str(error).split())[:300] or type(error).__name__
    return ValueError(f"{path}: cannot be read as a Parquet file ({why})")


def _check_types(
    path: Path, schema: "Schema", names: list[str], problems: Problems
) -> None:
    for name in names:
        kind = schema.field(name).type
        numbers = name in ("identity", "camera", "tracklet")
        if not _holds_words(kind, numbers=numbers):
            wanted = "words or whole numbers" if numbers else "words"
            problems.add(f"column of type {kind}", path, column=name, expected=wanted)
    problems.check()


def _holds_words(kind: "DataType", *, numbers: bool) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _holds_words(kind.value_type, numbers=numbers)
    words = (types.is_string, types.is_large_string, types.is_string_view)
    if types.is_null(kind) or any(holds(kind) for holds in words):
        return True
    tests = (types.is_integer, types.is_floating, types.is_decimal)
    return numbers and any(holds(kind) for holds in tests)


def _check_size(path: Path, sizes: Any) -> None:
    groups = range(sizes.num_row_groups)
    size = sum(sizes.row_group(i).total_byte_size for i in groups)
    there = path.stat().st_size
    rows = min(_MOST_ROWS, _FREE_ROWS + _ROWS_A_BYTE * there)
    most = min(MOST_BYTES, most_expanded(there))
    if not 0 <= sizes.num_rows <= rows or not 0 <= size <= most:
        raise ValueError(
            f"{path}: claims {sizes.num_rows:,} rows of {size:,} bytes, at most "
            f"{rows:,} and {most:,} are read from a file of {there:,}"
        )


def _word(path: Path, name: str, row: int, value: Any, problems: Problems) -> str:
    if value is None or value != value:  # NaN equals nothing
        return ""
    if isinstance(value, float | Decimal):
        if value in (float("inf"), -float("inf")) or value != int(value):
            kind = "not a whole number"
            problems.add(kind, path, line=row, column=name, value=str(value))
            return ""
        value = int(value)
    return str(value)
