"""Lists as they are shown, and why an image stands where it does."""

import numpy as np
import pytest

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import Row, run_row
from dex_jax.evaluation._results import Result
from dex_jax.report._ranks import explain, headline_queries
from dex_jax.report._shown import shown_lists
from dex_jax.rerank import chain, parse

# Reports are drawn once, on one worker.
pytestmark = pytest.mark.xdist_group("report")


def line_up(identities: list[int], cameras: list[int]) -> tuple[EmbeddingFile, Result]:
    """A gallery in the order of its rows for one query of identity 1, camera 0."""
    size = len(identities)
    angles = np.linspace(0, 1.5, size)
    file = EmbeddingFile(
        np.array([[1, 0]], np.float32),
        np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        ("q",),
        tuple(f"g{i}" for i in range(size)),
        query_identities=np.array([1]),
        gallery_identities=np.array(identities),
        query_cameras=np.array([0]),
        gallery_cameras=np.array(cameras),
        query_tracklets=np.array([-1]),
        gallery_tracklets=np.array([-1] * size),
    )
    protocol = Protocol("p", remove_same_camera=True)
    return file, run_row(file, Row("cosine", chain()), protocol)


def test_shown_lists_name_right_wrong_and_junk():
    protocol = Protocol("p", remove_same_camera=True)
    #         junk, wrong, junk (unlabelled), right, wrong
    file, result = line_up([1, 2, -1, 1, 3], [0, 0, 1, 1, 1])
    (shown,) = shown_lists(result, file, protocol)
    assert shown.ids == [0, 1, 2, 3, 4]
    assert shown.kinds == "20210"
    assert shown.first_hit == 2  # the second that counts
    (short,) = shown_lists(result, file, protocol, length=1)
    assert short.kinds == "202"


def test_much_junk_does_not_push_the_ranks_out():
    protocol = Protocol("p", remove_same_camera=True)
    file, result = line_up([1] * 6 + [2, 1], [0] * 6 + [1, 1])
    (shown,) = shown_lists(result, file, protocol)
    assert shown.kinds == "22201" and shown.ids == [0, 1, 2, 6, 7]


def test_lists_without_labels_are_unknown():
    file, result = line_up([1, 2, 3], [1, 1, 1])
    object.__setattr__(file, "query_identities", None)
    (shown,) = shown_lists(result, file, Protocol("p"), length=2)
    assert shown.kinds == "33" and shown.first_hit == 0
    (short,) = shown_lists(result, file, Protocol("p"))
    assert short.kinds == "333" and len(short.ids) == 3


def test_explanation_counts_ranks_reciprocity_and_shares():
    # Two tracklets: 7 at the query, 8 a quarter turn away; image 4 stands alone.
    gallery = np.array(
        [[1, 0.0], [0.8, 0.6], [0, 1.0], [0.6, 0.8], [-1, 0.0]], np.float32
    )
    file = EmbeddingFile(
        np.array([[1, 0]], np.float32),
        gallery,
        ("q",),
        tuple("abcde"),
        query_tracklets=np.array([-1]),
        gallery_tracklets=np.array([7, 7, 8, 8, -1]),
    )
    after = Result(
        Row("x", parse("dex")),
        None,
        None,
        np.array([[0, 2, 1, 3, 4]]),
        np.zeros((1, 5)),
        0.0,
    )
    found = explain(file, after, 0, length=2)
    assert found.ids == [0, 1, 2]  # both lists' first two, each once
    assert found.before == [1, 2, 4]
    assert found.after == [1, 3, 2]
    assert found.cosine == pytest.approx([1, 0.8, 0])
    assert found.reciprocal == [True, True, True]
    # Weights cos^2: 1 + .64 for tracklet 7, 0 + .36 for 8, none for the last.
    assert found.tracklets == [7, 8, 9]
    assert found.shares == pytest.approx([1.64 / 2, 0.36 / 2, 0])


def test_reciprocity_needs_the_query_among_the_images_own_nearest():
    # 25 copies beside image 1 are all nearer to it than the query is.
    crowd = [[0.6, 0.8]] * 26
    file = EmbeddingFile(
        np.array([[1, 0]], np.float32),
        np.array([[0.99, 0.14], *crowd], np.float32),
        ("q",),
        tuple(f"g{i}" for i in range(27)),
    )
    after = Result(
        Row("x", chain()), None, None, np.arange(27)[None], np.zeros((1, 27)), 0.0
    )
    assert explain(file, after, 0, length=2).reciprocal == [True, False]


def test_headline_runs_from_the_best_gain_to_the_median(report):
    before, after = report.results
    gain = after.scored.average_precision - before.scored.average_precision
    picked = headline_queries(before, after, count=2)
    assert picked[0] == int(np.argmax(gain)) and len(picked) == 2
    assert gain[picked[1]] >= np.median(gain) - 1e-9
