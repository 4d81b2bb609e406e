"""Which images count: own images left out, and labels by which nothing is scored."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import (
    check_scorable,
    counted_pairs,
    rows_for,
    run_row,
    score,
    self_match_notes,
)

NAMES = ("a", "b", "c", "d", "e")
IDENTITIES = np.array([1, 1, 2, 2, 3])
LEFT_OUT = Protocol("own", leave_one_out=True)


def every_image(**fields: Any) -> EmbeddingFile:
    """Five images that are queries to all of them; e is the only one of its vehicle."""
    angles = np.array([0.0, 0.1, 0.15, 0.9, 1.5])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    given: dict[str, Any] = {}
    for side in ("query", "gallery"):
        given |= {f"{side}_names": NAMES, f"{side}_identities": IDENTITIES}
    return EmbeddingFile(rows, rows, **{**given, **fields})


def test_own_images_are_left_out_by_hand():
    """Lists without the own image: a: b c d e, b: c a d e, c: b a d e, d: e c b a."""
    file = every_image()
    scores = file.query_features @ file.gallery_features.T
    found = score(scores, file, LEFT_OUT)
    np.testing.assert_allclose(found.average_precision[:4], [1, 1 / 2, 1 / 3, 1 / 2])
    assert found.valid.tolist() == [True, True, True, True, False]
    assert found.mean_ap == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    with_own = score(scores, file, Protocol("with own"))
    assert with_own.cmc[0] == 1 and with_own.mean_ap > found.mean_ap
    counted, positive = counted_pairs(file, LEFT_OUT, slice(None))
    np.testing.assert_array_equal(counted, ~np.eye(5, dtype=bool))
    assert positive.sum() == 4
    # A result's lists and figures are of the same rule.
    result = run_row(file, rows_for("none").rows[0], LEFT_OUT)
    assert result.scored is not None
    assert result.scored.mean_ap == pytest.approx(found.mean_ap)
    assert result.verification is not None and result.verification.genuine == 4


def test_the_cameras_rule_and_own_images_together():
    cameras = np.array([1, -1, 2, 3, -1])
    file = every_image(query_cameras=cameras, gallery_cameras=cameras)
    both = Protocol("both", remove_same_camera=True, leave_one_out=True)
    counted, _ = counted_pairs(file, both, slice(None))
    np.testing.assert_array_equal(counted, ~np.eye(5, dtype=bool))
    # Without leave_one_out, own images of unknown cameras stay.
    counted, _ = counted_pairs(file, replace(both, leave_one_out=False), slice(None))
    assert np.diag(counted).tolist() == [False, True, False, False, True]
    same = every_image(query_cameras=IDENTITIES, gallery_cameras=IDENTITIES)
    assert counted_pairs(same, both, slice(None))[1].sum() == 0


def test_other_labels_of_the_own_image_are_named():
    other = every_image(query_identities=np.array([1, 1, 2, 3, 3]))
    with pytest.raises(ValueError, match="'d' has the identity 3 as a query and 2 in"):
        score(np.eye(5), other, LEFT_OUT)
    worded = replace(other, meta={"words": {"identities": ["", "", "bus 7", "van"]}})
    with pytest.raises(ValueError, match="has the identity van as a query and bus 7 "):
        score(np.eye(5), worded, LEFT_OUT)
    with pytest.raises(
        ValueError, match="leave_one_out: leaves out an image, and gall"
    ):
        Protocol("tracks", leave_one_out=True, gallery_unit="tracklet")
    wrong: dict[str, Any] = {"leave_one_out": 1}
    with pytest.raises(ValueError, match="leave_one_out: expected True or False"):
        Protocol("number", **wrong)


def test_queries_in_the_gallery_are_counted():
    plain = Protocol("plain")
    (note,) = self_match_notes(every_image(), plain)
    assert note.startswith("5 of 5 queries have an image of their own name in the")
    assert "--leave_one_out" in note and not self_match_notes(every_image(), LEFT_OUT)
    junk = every_image(query_identities=np.array([-1, 1, 2, 2, 3]))
    assert self_match_notes(junk, plain)[0].startswith("4 of 5 queries")
    cameras = np.array([1, -1, 2, 3, -1])
    file = every_image(query_cameras=cameras, gallery_cameras=cameras)
    removed = Protocol("removed", remove_same_camera=True)
    assert self_match_notes(file, removed)[0].startswith("2 of 5 queries")
    # The same pictures under other names.
    renamed = replace(file, query_names=("q1", "q2", "q3", "q4", "q5"))
    (note,) = self_match_notes(renamed, plain)
    assert note.startswith("5 of 5 queries have a gallery image of exactly their")
    # Descriptors that begin alike, as with many zeros.
    late = np.hstack([np.zeros((5, 8)), np.eye(5)])
    alike = replace(renamed, query_features=late, gallery_features=late)
    assert self_match_notes(alike, plain)[0].startswith("5 of 5 queries")
    apart = replace(renamed, query_features=renamed.query_features[::-1] + 1e-3)
    assert self_match_notes(apart, plain) == []


@pytest.mark.parametrize(
    ("fields", "protocol", "message"),
    [
        (
            {"query_identities": None, "gallery_identities": None},
            Protocol("p"),
            "identities: are needed",
        ),
        (
            {"gallery_identities": np.array([7, 8, 9, -1, -1])},
            Protocol("p"),
            "none of the queries' identities is in the gallery",
        ),
        (
            {"query_cameras": np.ones(5, int), "gallery_cameras": np.ones(5, int)},
            Protocol("p", remove_same_camera=True),
            "protocol 'p' leaves no positive, each vehicle is seen by one camera; "
            "--same_camera keep",
        ),
        (
            {f"{side}_identities": np.arange(5) for side in ("query", "gallery")},
            LEFT_OUT,
            "each vehicle has one image, its own",
        ),
        (
            {"query_names": ("q1", "q2", "q3", "q4", "q5")},
            LEFT_OUT,
            "leave_one_out: no query has the name of a gallery image",
        ),
        (
            {"query_identities": -np.ones(5, int)},
            Protocol("p"),
            "none of the queries' identities",
        ),
    ],
)
def test_labels_that_score_nothing_say_what_would_help(fields, protocol, message):
    file = every_image(**fields)
    with pytest.raises(ValueError, match=message):
        check_scorable(file, protocol)
    with pytest.raises(ValueError, match=message):
        score(np.eye(5), file, protocol)


def test_one_query_that_counts_is_enough():
    cameras = np.array([1, 2, 1, 1, 1])
    file = every_image(query_cameras=cameras, gallery_cameras=cameras)
    check_scorable(file, Protocol("p", remove_same_camera=True))
    unknown = every_image(query_cameras=-np.ones(5, int), gallery_cameras=cameras)
    check_scorable(unknown, Protocol("p", remove_same_camera=True))
