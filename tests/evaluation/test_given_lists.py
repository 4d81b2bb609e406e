"""Somebody's lists: tracklets pulled in, scored without descriptors."""

import numpy as np
import pytest

from dex_jax.data import Protocol, ReidData, ReidSplit
from dex_jax.evaluation import (
    data_labels,
    pull_in,
    pull_in_order,
    read_submission,
    score_file,
)

TRACKS = np.array([5, 6, 5, 6, -1, 6])
# Best first: 3 (track 6), 0 (track 5), 4 (alone), 5 (track 6), 2 and 1.
LIST = [3, 0, 4, 5, 2, 1]
PULLED = {"gallery": [1, 3, 5, 0, 2, 4], "score": [3, 5, 1, 0, 2, 4]}


def split(names: str, identities: list[int], tracklets: np.ndarray) -> ReidSplit:
    class Unread:
        def __len__(self) -> int:
            return len(identities)

        def __getitem__(self, index: int) -> np.ndarray:
            raise AssertionError(f"picture {index} was opened")

    return ReidSplit(Unread(), tuple(names), np.array(identities), tracklets=tracklets)


def made(identity: int = 1) -> ReidData:
    nothing = ReidSplit(np.zeros((0, 1, 1, 3), np.uint8), (), np.empty(0, np.int64))
    gallery = split("abcdef", [2, 1, 2, 1, 3, 1], TRACKS)
    query = split("q", [identity], np.array([-1]))
    return ReidData("made", nothing, query, gallery, Protocol("made"), "1")


@pytest.mark.parametrize("order", ["gallery", "score"])
def test_lists_are_pulled_in_and_scored(tmp_path, order):
    (tmp_path / "theirs.txt").write_text(" ".join(str(i + 1) for i in LIST))
    np.save(tmp_path / "theirs.npy", np.argsort(LIST)[None] * 1e-9 + 1.0)
    precision = [(1 + 2 / 4 + 3 / 6) / 3, 1.0]
    for name in ("theirs.txt", "theirs.npy"):
        path, out = tmp_path / name, tmp_path / f"{name}.out"
        labels, protocol = data_labels(made()), Protocol("p", draws=3)
        lines = list(score_file(path, labels, protocol, order=order, submission=out))
        assert lines[0] == Protocol("p").describe()
        found = read_submission(out, queries=1, gallery=6)
        assert np.asarray(found.ids)[0].tolist() == PULLED[order]
        assert lines[1] == f"wrote {out}: 1 lines"
        for line, value in zip(lines[2:], precision, strict=True):
            assert f"mAP {100 * value:.2f}," in line
        assert f"{name}, tracklets pulled in: " in lines[3] and f"{name}: " in lines[2]


def test_images_beyond_a_list_are_pulled_in_behind_it():
    found = pull_in(np.array([[0.0, 2.0, -1.0, 1.0, 0.5, -3.0]]), TRACKS)
    assert np.argsort(-found[0], kind="stable").tolist() == [1, 3, 5, 4, 0, 2]
    integers = np.array([[0, 2, -1, 1, 1, -3]])
    by_score = pull_in(integers, TRACKS, order="score")
    assert np.argsort(-by_score[0], kind="stable").tolist() == [1, 3, 5, 4, 0, 2]


def test_lists_without_identities_are_pulled_in_all_the_same(tmp_path):
    path, out = tmp_path / "theirs.txt", tmp_path / "ours.txt"
    path.write_text(" ".join(str(i + 1) for i in LIST))
    labels = data_labels(made(identity=-1))
    lines = list(
        score_file(path, labels, Protocol("p"), order="gallery", submission=out)
    )
    assert out.exists() and "no identities, so nothing is scored" in lines[-1]


def test_other_steps_and_no_tracklets_are_refused(tmp_path):
    assert pull_in_order(None) is None and pull_in_order("none") is None
    assert pull_in_order("tracklet") == "gallery"
    assert pull_in_order("tracklet(order=score)") == "score"
    for text in ("dex,tracklet", "table6", "k_reciprocal"):
        with pytest.raises(ValueError, match="--rerank: a given list is re-ranked by"):
            pull_in_order(text)
    labels = data_labels(made())
    object.__setattr__(labels, "gallery_tracklets", np.full(6, -1))
    (tmp_path / "theirs.txt").write_text(" ".join(str(i + 1) for i in LIST))
    with pytest.raises(ValueError, match="--rerank: the gallery has no tracklets"):
        list(
            score_file(tmp_path / "theirs.txt", labels, Protocol("p"), order="gallery")
        )
