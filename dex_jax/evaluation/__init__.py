"""Descriptors described, re-ranked and scored: what a report is drawn from."""

from dex_jax._checks import missing_extra

try:
    from dex_jax.evaluation._cache import Cache, Descriptors, code_version
    from dex_jax.evaluation._cameras import CameraMatrix, camera_matrix
    from dex_jax.evaluation._choices import changed_protocol, find_query, report_name
    from dex_jax.evaluation._draws import further_draws
    from dex_jax.evaluation._extraction import (
        Apply,
        describe,
        describe_data,
        extract,
        scaled_size,
    )
    from dex_jax.evaluation._given_lists import pull_in, pull_in_order, score_file
    from dex_jax.evaluation._labels import (
        Labelled,
        Labels,
        camera_tag,
        check_scorable,
        counted_pairs,
        data_labels,
        label_word,
        pair_scores,
        protocol_labels,
        self_match_notes,
    )
    from dex_jax.evaluation._paper import PAPER_DATA, TABLES, Row, Table, rows_for
    from dex_jax.evaluation._results import (
        Result,
        Scored,
        compare,
        interval_notes,
        rank_all,
        run_row,
        score,
        shared_cache,
        tracklet_notes,
    )
    from dex_jax.evaluation._run_source import RunSource
    from dex_jax.evaluation._sources import EmbeddingSource, Source, with_labels
    from dex_jax.evaluation._statistics import (
        Comparison,
        Interval,
        holm,
        mean_interval,
        paired_comparison,
    )
    from dex_jax.evaluation._submission import (
        read_ranking,
        read_submission,
        submit,
        write_submission,
    )
    from dex_jax.evaluation._sweep import Grid, Swept, read_sweep, sweep
    from dex_jax.evaluation._validation import validate
    from dex_jax.evaluation._verification import Verification, verify
except ModuleNotFoundError as error:
    raise missing_extra(error, "train") from None

__all__ = [
    "PAPER_DATA",
    "TABLES",
    "Apply",
    "Cache",
    "CameraMatrix",
    "Comparison",
    "Descriptors",
    "EmbeddingSource",
    "Grid",
    "Interval",
    "Labelled",
    "Labels",
    "Result",
    "Row",
    "RunSource",
    "Scored",
    "Source",
    "Swept",
    "Table",
    "Verification",
    "camera_matrix",
    "camera_tag",
    "changed_protocol",
    "check_scorable",
    "code_version",
    "compare",
    "counted_pairs",
    "data_labels",
    "describe",
    "describe_data",
    "extract",
    "find_query",
    "further_draws",
    "holm",
    "interval_notes",
    "label_word",
    "mean_interval",
    "pair_scores",
    "paired_comparison",
    "protocol_labels",
    "pull_in",
    "pull_in_order",
    "rank_all",
    "read_ranking",
    "read_submission",
    "read_sweep",
    "report_name",
    "rows_for",
    "run_row",
    "scaled_size",
    "score",
    "score_file",
    "self_match_notes",
    "shared_cache",
    "submit",
    "sweep",
    "tracklet_notes",
    "validate",
    "verify",
    "with_labels",
    "write_submission",
]
