"""Checks at the public border: what a user may pass in, and what the error says.

Values are looked at only while the arrays are concrete; under a caller's `jit`,
`vmap` or `grad` the checks on values are skipped and those on shapes remain.
"""

from dex_jax._checks._arrays import is_concrete
from dex_jax._checks._extras import EXTRA_MODULES, missing_extra, require
from dex_jax._checks._labels import check_ids, check_paired_ids
from dex_jax._checks._lengths import RowLengths, row_lengths, unit_rows
from dex_jax._checks._options import (
    Count,
    check_choice,
    check_count,
    check_masked_count,
    check_number,
)
from dex_jax._checks._rows import check_rows, check_same_width, check_values, read_rows

__all__ = [
    "EXTRA_MODULES",
    "Count",
    "RowLengths",
    "check_choice",
    "check_count",
    "check_ids",
    "check_masked_count",
    "check_number",
    "check_paired_ids",
    "check_rows",
    "check_same_width",
    "check_values",
    "is_concrete",
    "missing_extra",
    "read_rows",
    "require",
    "row_lengths",
    "unit_rows",
]
