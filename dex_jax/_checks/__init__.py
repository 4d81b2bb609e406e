"""Checks at the public border: what a user may pass in, and what the error says.

Values are looked at only while the arrays are concrete; under a caller's `jit`,
`vmap` or `grad` the checks on values are skipped and those on shapes remain.
"""

from dex_jax._checks._array_files import (
    EXPANSION_VARIABLE,
    check_directory,
    check_memory,
    most_expanded,
    read_npy,
    read_npz,
)
from dex_jax._checks._arrays import (
    ArrayLike,
    host_value,
    is_concrete,
    read_array,
    read_matrix,
    replicated,
)
from dex_jax._checks._distances import warn_of_distances
from dex_jax._checks._extras import EXTRA_MODULES, missing_extra, require
from dex_jax._checks._files import check_file, whole_file
from dex_jax._checks._json import read_json
from dex_jax._checks._label_words import JUNK, alike, read_label
from dex_jax._checks._labels import check_classes, check_ids, check_paired_ids
from dex_jax._checks._lengths import RowLengths, row_lengths, unit_rows
from dex_jax._checks._meshes import on_any_mesh
from dex_jax._checks._options import (
    Count,
    check_choice,
    check_count,
    check_flag,
    check_masked_count,
    check_number,
)
from dex_jax._checks._outputs import check_new_file, check_parents
from dex_jax._checks._plain_text import plain_text
from dex_jax._checks._rows import check_rows, check_same_width, check_values, read_rows
from dex_jax._checks._scores import narrow_scores, ranked_scores
from dex_jax._checks._warnings import warn_user

__all__ = [
    "EXPANSION_VARIABLE",
    "EXTRA_MODULES",
    "JUNK",
    "ArrayLike",
    "Count",
    "RowLengths",
    "alike",
    "check_choice",
    "check_classes",
    "check_count",
    "check_directory",
    "check_file",
    "check_flag",
    "check_ids",
    "check_masked_count",
    "check_memory",
    "check_new_file",
    "check_number",
    "check_paired_ids",
    "check_parents",
    "check_rows",
    "check_same_width",
    "check_values",
    "host_value",
    "is_concrete",
    "missing_extra",
    "most_expanded",
    "narrow_scores",
    "on_any_mesh",
    "plain_text",
    "ranked_scores",
    "read_array",
    "read_json",
    "read_label",
    "read_matrix",
    "read_npy",
    "read_npz",
    "read_rows",
    "replicated",
    "require",
    "row_lengths",
    "unit_rows",
    "warn_of_distances",
    "warn_user",
    "whole_file",
]
