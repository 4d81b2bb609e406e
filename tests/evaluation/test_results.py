"""Figures of a row, pairs that count, cameras: against slow counting."""

import numpy as np
import pytest

from dex_jax.data import Protocol
from dex_jax.embeddings import EmbeddingFile
from dex_jax.evaluation import (
    TABLES,
    Row,
    rank_all,
    rows_for,
    run_row,
    score,
    tracklet_notes,
)
from dex_jax.evaluation._cameras import camera_matrix
from dex_jax.evaluation._labels import counted_pairs, pair_scores
from dex_jax.rerank import chain
from tests.evaluation.example import make_file


def slow_precisions(scores, file, protocol, cameras=None):
    """Average precision of every query by its definition, one image at a time."""
    found = []
    for q, row in enumerate(scores):
        hits, seen, precisions = 0, 0, []
        for g in np.argsort(-row, kind="stable"):
            same = file.query_identities[q] == file.gallery_identities[g]
            near = file.query_cameras[q] == file.gallery_cameras[g]
            if file.gallery_identities[g] == -1:
                continue
            if same and near and protocol.remove_same_camera:
                continue
            if cameras is not None and file.gallery_cameras[g] != cameras:
                continue
            seen += 1
            if same:
                hits += 1
                precisions.append(hits / seen)
        found.append(np.mean(precisions) if precisions else np.nan)
    return np.array(found)


@pytest.mark.parametrize("remove", [True, False])
def test_a_row_is_scored_by_its_protocol(file, remove):
    protocol = Protocol("p", remove_same_camera=remove)
    result = run_row(file, Row("cosine", chain()), protocol)
    scores = np.asarray(rank_all(file, chain())[0])
    slow = slow_precisions(scores, file, protocol)
    assert result.scored is not None and result.interval is not None
    np.testing.assert_allclose(result.scored.average_precision, slow, rtol=1e-6)
    assert result.scored.mean_ap == pytest.approx(slow.mean(), rel=1e-6)
    assert result.interval.mean == pytest.approx(slow.mean(), rel=1e-6)
    np.testing.assert_array_equal(
        result.ids, np.argsort(-scores, axis=1, kind="stable")
    )
    # No list is longer than 100 and no query has more positives.
    assert result.scored.map_at_100["min"] == pytest.approx(slow.mean(), rel=1e-6)


def test_lists_are_cut_at_100_by_hand():
    """One query; 150 of 300 images are of its vehicle, and stand in front."""
    angles = np.linspace(0, 1, 300)
    file = EmbeddingFile(
        np.array([[1.0, 0.0]], np.float32),
        np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        ("q",),
        tuple(f"{i}" for i in range(300)),
        query_identities=np.array([1]),
        gallery_identities=np.repeat([1, 2], 150),
    )
    scores = file.query_features @ file.gallery_features.T
    found = score(scores, file, Protocol("whole"))
    assert found.mean_ap == pytest.approx(1)
    assert found.map_at_100["positives"] == pytest.approx(100 / 150)
    assert found.map_at_100["min"] == pytest.approx(1)
    for top, denominator, expected in (
        (100, "positives", 100 / 150),
        (100, "min", 1),
        (30, "positives", 30 / 150),
        (30, "min", 1),
    ):
        protocol = Protocol("cut", top=top, ap_denominator=denominator)
        found = score(scores, file, protocol)
        assert found.mean_ap == pytest.approx(expected)
        assert found.map_at_100["positives"] == pytest.approx(100 / 150)
    # The same vehicle behind: ranks 151 to 300.
    found = score(-scores, file, Protocol("whole"))
    assert found.map_at_100 == {"positives": 0, "min": 0} and found.mean_ap > 0.3


def test_junk_has_no_part_in_the_camera_matrix(protocol):
    file = make_file()
    assert file.gallery_identities is not None and file.gallery_cameras is not None
    file.gallery_identities[[3, 12, 21, 30, 39, 48]] = -1  # at camera 1
    scores = np.asarray(rank_all(file, chain())[0]).copy()
    scores[:, file.gallery_identities == -1] = 2  # in front of all others
    found = camera_matrix(scores, file, protocol)
    assert found is not None
    for column in (1, 2):
        slow = slow_precisions(scores, file, protocol, cameras=column)
        assert found.mean_ap[0, column] == pytest.approx(slow.mean(), rel=1e-6)


def test_junk_is_never_scored(protocol):
    file = make_file()
    assert file.gallery_identities is not None
    file.gallery_identities[5:9] = -1
    result = run_row(file, Row("cosine", chain()), protocol)
    scores = np.asarray(rank_all(file, chain())[0])
    slow = slow_precisions(scores, file, protocol)
    assert result.scored is not None
    np.testing.assert_allclose(result.scored.average_precision, slow, rtol=1e-6)


def test_pairs_split_into_one_vehicle_and_two(file, protocol):
    counted, positive = counted_pairs(file, protocol, slice(0, 2))
    # 3 images at each of 2 other cameras; the 3 at the query's own are left out.
    assert positive.sum(axis=1).tolist() == [6, 6]
    assert counted.sum(axis=1).tolist() == [51, 51]
    scores = np.arange(6 * 54, dtype=np.float32).reshape(6, 54)
    genuine, impostor = pair_scores(scores, file, protocol)
    assert (len(genuine), len(impostor)) == (36, 6 * 45)
    assert set(genuine) | set(impostor) <= set(scores.ravel())
    assert not set(genuine) & set(impostor)


def test_camera_matrix_is_ap_within_one_camera(file, protocol):
    scores = np.asarray(rank_all(file, chain())[0])
    found = camera_matrix(scores, file, protocol)
    assert found is not None
    assert (found.query_cameras, found.gallery_cameras) == ([0], [0, 1, 2])
    assert np.isnan(found.mean_ap[0, 0]) and found.queries.tolist() == [[0, 6, 6]]
    for column in (1, 2):
        slow = slow_precisions(scores, file, protocol, cameras=column)
        assert found.mean_ap[0, column] == pytest.approx(slow.mean(), rel=1e-6)


def test_every_table_has_its_rows():
    for table in TABLES.values():
        assert len({row.label for row in table.rows}) == len(table.rows)
    assert len(TABLES["table6"].rows) == 11
    assert [len(TABLES[f"table{i}"].rows) for i in (2, 3, 4, 5)] == [5, 17, 7, 5]
    assert TABLES["table4"].rows[1].chain == "diffusion(k=25)"
    assert TABLES["table6"].rows[-1].chain == "dex,dba,diffusion"


def test_a_chain_is_a_table_of_two_rows():
    assert rows_for("table6") is TABLES["table6"]
    rows = rows_for(" dex( k=3 ), dba ").rows
    assert [(row.label, row.chain) for row in rows] == [
        ("baseline", "none"),
        ("dex(k=3),dba", "dex(k=3),dba"),
    ]
    for text in ("none", " cosine"):
        assert [row.chain for row in rows_for(text).rows] == ["none"]
    with pytest.raises(ValueError, match="rerank: unknown step 'table7'"):
        rows_for("table7")


@pytest.mark.parametrize(
    ("text", "noted"),
    [("dex", True), ("dba,tracklet", True), ("tracklet_means", True), ("dba", False)],
)
def test_a_gallery_without_tracklets_is_noted(file, text, noted):
    rows = rows_for(text).rows
    assert tracklet_notes(file, rows) == []
    bare = make_file()
    object.__setattr__(bare, "gallery_tracklets", None)
    assert len(tracklet_notes(bare, rows)) == noted


def test_missing_labels_are_named(file, protocol):
    bare = make_file()
    object.__setattr__(bare, "query_cameras", None)
    with pytest.raises(ValueError, match="cameras: the protocol 'sample' removes"):
        run_row(bare, Row("cosine", chain()), protocol)
    object.__setattr__(bare, "query_identities", None)
    with pytest.raises(ValueError, match="identities: are needed to score"):
        score(np.zeros((6, 54)), bare, protocol)


def test_tracklets_are_ranked_where_the_protocol_says_so(file):
    protocol = Protocol("p", remove_same_camera=True, gallery_unit="tracklet")
    result = run_row(file, Row("cosine", chain()), protocol)
    scores = np.asarray(rank_all(file, chain())[0])
    # Tracklet t holds images 3 t to 3 t + 2, of identity t // 3 at camera t % 3.
    best = scores.reshape(6, 18, 3).max(axis=2)
    for query in range(6):
        order = [t for t in np.argsort(-best[query]) if t != 3 * query]
        ranks = [1 + order.index(t) for t in (3 * query + 1, 3 * query + 2)]
        expected = (1 / min(ranks) + 2 / max(ranks)) / 2
        assert result.scored is not None
        assert result.scored.average_precision[query] == pytest.approx(expected)
        image = result.ids[query, 0]
        assert scores[query, image] == best[query].max()
    assert result.ids.shape == (6, 18)


def test_tracklets_need_all_scores(file):
    protocol = Protocol("p", gallery_unit="tracklet")
    with pytest.raises(ValueError, match="needs the scores of all gallery images"):
        score(rank_all(file, chain())[1], file, protocol)
