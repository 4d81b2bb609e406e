"""track2.txt: what is written, and what is understood of other people's."""

import numpy as np
import pytest

from dex_jax.evaluation import (
    rank_all,
    read_ranking,
    read_submission,
    submit,
    write_submission,
)
from dex_jax.metrics import evaluate
from dex_jax.rerank import parse


def lists(queries: int = 3, gallery: int = 120, length: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([rng.permutation(gallery)[:length] for _ in range(queries)])


def test_round_trip_and_exact_bytes(tmp_path):
    ids = lists()
    path = tmp_path / "deep" / "track2.txt"
    write_submission(path, ids, gallery=120)
    content = path.read_bytes()
    assert content.endswith(b"\n") and b" \n" not in content and b"\r" not in content
    first = content.split(b"\n")[0].split(b" ")
    assert first == [str(i + 1).encode() for i in ids[0]]
    read = read_submission(path, queries=3, gallery=120)
    np.testing.assert_array_equal(read.ids, ids)
    assert (np.diff(np.asarray(read.scores)) < 0).all()


def test_longer_lists_are_cut_and_short_galleries_kept_whole(tmp_path):
    path = tmp_path / "track2.txt"
    write_submission(path, lists(length=110), gallery=120)
    assert {len(line.split()) for line in path.read_text().splitlines()} == {100}
    write_submission(path, np.array([[1, 0]]), gallery=2)
    assert path.read_text() == "2 1\n"


def test_padded_names_and_crlf_are_understood(tmp_path):
    path = tmp_path / "track2.txt"
    path.write_bytes(b"\xef\xbb\xbf000003.jpg 000001.jpg 2 \r\n1 2 3\r\n\r\n")
    read = read_submission(path, queries=2, gallery=3)
    assert np.asarray(read.ids).tolist() == [[2, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "has 1 lines, expected one a query: 2"),
        ("1 2 3\n1 2\n", "line 2 has 2 ids, expected 3"),
        ("1 2 4\n1 2 3\n", "line 1: id 4 is out of range 1 to 3"),
        ("1 2 3\n0 1 2\n", "line 2: id 0 is out of range"),
        ("1 2 3\n3 1 3\n", "line 2: id 3 is named twice"),
        ("1 two 3\n1 2 3\n", "line 1: expected an id, got 'two'"),
        ("1 2 -3\n1 2 3\n", "line 1: expected an id, got '-3'"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, text, message):
    path = tmp_path / "track2.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"track2.txt: {message}"):
        read_submission(path, queries=2, gallery=3)


def test_writer_refuses_bad_lists(tmp_path):
    path = tmp_path / "track2.txt"
    with pytest.raises(ValueError, match=r"expected \[Q, 100\] or more"):
        write_submission(path, lists(length=99), gallery=120)
    with pytest.raises(ValueError, match="row 0: id 1 is named twice"):
        write_submission(path, np.array([[1, 1]]), gallery=2)
    with pytest.raises(ValueError, match="row 0: id 2 is out of range 0 to 1"):
        write_submission(path, np.array([[0, 2]]), gallery=2)
    assert not path.exists()


def test_distances_are_turned_into_scores(tmp_path):
    path = tmp_path / "distmat.npy"
    np.save(path, np.array([[0.5, 0.1]]))
    found = read_ranking(path, queries=1, gallery=2)
    np.testing.assert_array_equal(found, np.array([[-0.5, -0.1]]))
    with pytest.raises(ValueError, match=r"expected distances \[1, 3\]"):
        read_ranking(path, queries=1, gallery=3)
    np.save(path, np.array([[0.5, 1j]]))
    with pytest.raises(ValueError, match="expected real numbers, got complex128"):
        read_ranking(path, queries=1, gallery=2)
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"binary\.txt: is no text"):
        read_ranking(tmp_path / "binary.txt", queries=1, gallery=2)
    np.save(path, np.array([[0.5, np.nan]]))
    with pytest.raises(ValueError, match="row 0 holds NaN"):
        read_ranking(path, queries=1, gallery=2)


@pytest.mark.parametrize(
    "distances",
    [
        [[1 + 1e-9, 1.0, 2.0]],
        [[1e6 + 2e-3, 1e6 + 1e-3, 1e300]],
        np.array([[2**60 + 1, 2**60, 2**61]]),
        # The lowest integer, and one without a sign, have no negative value.
        np.array([[0, -(2**63), 2**63 - 1]]),
        np.array([[1, 0, 2**64 - 1]], np.uint64),
        np.array([[7, 5, 255]], np.uint8),
        np.array([[7, 5, 9]], np.float16),
    ],
)
def test_distances_are_ranked_in_their_own_type(tmp_path, distances):
    np.save(tmp_path / "distmat.npy", distances)
    scores = read_ranking(tmp_path / "distmat.npy", queries=1, gallery=3)
    found = evaluate(scores, query_identities=[1], gallery_identities=[2, 1, 3])
    assert found.mean_ap == 1


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("none", "tracklet"),
        ("dex(k=3)", "dex(k=3),tracklet"),
        ("tracklet_means", "tracklet_means,tracklet"),
        ("tracklet", "tracklet"),
    ],
)
def test_a_submission_pulls_tracklets_in_once(file, tmp_path, text, written):
    path = tmp_path / "track2.txt"
    said = submit(path, file, parse(text))
    assert said == f"wrote {path}: 6 lines, chain {written}"
    expected = rank_all(file, parse(written))[1].ids
    read = read_submission(path, queries=6, gallery=54)
    np.testing.assert_array_equal(read.ids, expected)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_ranking(tmp_path / "none.txt", queries=1, gallery=2)
