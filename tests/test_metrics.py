"""Metrics against hand-made lists, a walk down each list, and reference vectors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dex_jax import metrics
from dex_jax.metrics import evaluate
from dex_jax.rerank import Ranking
from tests.reference import metrics as reference

Q, G = 9, 57
NAMES = ["cos", "krec", "diff"]


def _instance(seed: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    labels: dict[str, Any] = {
        "query_identities": rng.integers(-1, 6, Q),
        "gallery_identities": rng.integers(-1, 5, G),
        "query_cameras": rng.integers(-1, 3, Q),
        "gallery_cameras": rng.integers(-1, 3, G),
    }
    # Few different values: ties in every row.
    return rng.integers(0, 20, (Q, G)).astype(np.float32) / 8, labels


def _ranking(scores: np.ndarray, length: int) -> Ranking:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :length]
    return Ranking(jnp.asarray(order, jnp.int32), jnp.take_along_axis(scores, order, 1))


def _expected(scores, labels, *, top=None, smaller=False, trapezoid=False, length=50):
    lists = [
        reference.kept_list(
            scores[i],
            labels["query_identities"][i],
            labels["query_cameras"][i],
            labels["gallery_identities"],
            labels["gallery_cameras"],
        )
        for i in range(len(scores))
    ]
    ap = [
        reference.average_precision(hits, top=top, smaller=smaller, trapezoid=trapezoid)
        for hits in lists
    ]
    good = [hits for hits in lists if any(hits)]
    return {
        "average_precision": np.array(ap),
        "mean_ap": np.nanmean(ap),
        "valid": np.array([any(hits) for hits in lists]),
        "mean_inp": np.mean([reference.inverse_penalty(hits, top) for hits in good]),
        "cmc": np.mean([reference.curve(hits, top, length) for hits in good], axis=0),
    }


def _agree(found, expected, tolerance=1e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(found, name), value, atol=tolerance, err_msg=name
        )


@pytest.mark.quick
def test_a_list_by_hand():
    # Ranks of the positives: 1, 3, 4. AP = (1/1 + 2/3 + 3/4) / 3; last rank 4.
    found = evaluate(
        np.array([[0.9, 0.8, 0.7, 0.6, 0.5]]),
        query_identities=np.array([7]),
        gallery_identities=np.array([7, 1, 7, 7, 2]),
        max_rank=3,
    )
    assert found.mean_ap == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found.mean_inp == pytest.approx(3 / 4)
    assert found.cmc.tolist() == [1, 1, 1]


@pytest.mark.quick
def test_removed_images_take_no_rank():
    # In order: own identity and camera (removed), junk (removed), wrong, right.
    found = evaluate(
        np.array([[0.9, 0.8, 0.7, 0.6]]),
        query_identities=np.array([3]),
        gallery_identities=np.array([3, -1, 4, 3]),
        query_cameras=np.array([0]),
        gallery_cameras=np.array([0, 1, 0, 1]),
    )
    assert found.mean_ap == pytest.approx(1 / 2)


@pytest.mark.quick
def test_ties_go_to_the_lower_index():
    found = evaluate(
        np.zeros((2, 4)),
        query_identities=np.array([1, 2]),
        gallery_identities=np.array([1, 2, 2, 1]),
    )
    np.testing.assert_allclose(
        found.average_precision, [(1 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2], rtol=1e-6
    )


@pytest.mark.quick
def test_an_unknown_camera_equals_no_camera():
    found = evaluate(
        np.array([[0.9, 0.8]]),
        query_identities=np.array([1]),
        gallery_identities=np.array([1, 2]),
        query_cameras=np.array([-1]),
        gallery_cameras=np.array([-1, 0]),
    )
    assert found.mean_ap == 1


@pytest.mark.quick
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("top", [None, 5])
@pytest.mark.parametrize("smaller", [False, True])
@pytest.mark.parametrize("trapezoid", [False, True])
def test_agrees_with_a_walk_down_the_list(seed, top, smaller, trapezoid):
    scores, labels = _instance(seed)
    options: dict[str, Any] = {
        "top": top,
        "ap_denominator": "min" if smaller else "positives",
        "ap_method": "trapezoid" if trapezoid else "precision",
    }
    expected = _expected(scores, labels, top=top, smaller=smaller, trapezoid=trapezoid)
    _agree(evaluate(scores, **labels, **options), expected)
    _agree(evaluate(_ranking(scores, G), **labels, **options), expected)


@pytest.mark.quick
def test_a_short_ranking_equals_the_dense_scores_cut_there():
    scores, labels = _instance()
    labels["query_cameras"] = labels["gallery_cameras"] = None
    labels["gallery_identities"] = np.abs(labels["gallery_identities"])  # no junk
    for denominator in ("positives", "min"):
        short = evaluate(_ranking(scores, 7), **labels, ap_denominator=denominator)
        dense = evaluate(scores, **labels, top=7, ap_denominator=denominator)
        _agree(short, dense._asdict())


@pytest.mark.quick
def test_positives_beyond_a_short_ranking_count_as_not_found():
    found = evaluate(
        Ranking(jnp.array([[2, 0]]), jnp.array([[0.9, 0.8]])),
        query_identities=np.array([1]),
        gallery_identities=np.array([1, 1, 5, 1]),
    )
    assert found.mean_ap == pytest.approx(1 / 2 / 3)
    assert found.mean_inp == 0


@pytest.mark.parametrize("instance", ["a", "b"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["cam", "nocam"])
def test_reference_vectors(golden, instance, name, view):
    inputs = np.load(golden / "rerank" / f"{instance}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{instance}_metrics.npz")
    labels: dict[str, Any] = {
        "query_identities": inputs["q_id"],
        "gallery_identities": inputs["g_id"],
    }
    if view == "cam":
        labels |= {"query_cameras": inputs["q_cam"], "gallery_cameras": inputs["g_cam"]}
    key = f"{name}_{view}"
    scores = -vectors[f"{name}_dist"]
    for given_as in (scores, _ranking(scores, scores.shape[1])):
        found = evaluate(given_as, **labels)
        expected = {
            "average_precision": vectors[f"{key}_AP"],
            "mean_ap": vectors[f"{key}_mAP"],
            "mean_inp": vectors[f"{key}_mINP"],
            "cmc": vectors[f"{key}_CMC"],
            "valid": vectors[f"{key}_valid"],
        }
        _agree(found, expected, 1e-5)
    cuts: list[tuple[dict[str, Any], str]] = [
        ({"top": 100}, "AP100_relevant"),
        ({"top": 100, "ap_denominator": "min"}, "AP100_min"),
        ({"ap_method": "trapezoid"}, "AP_trapezoid"),
    ]
    for options, column in cuts:
        found = evaluate(scores, **labels, **options)
        _agree(found, {"average_precision": vectors[f"{key}_{column}"]}, 1e-5)


@pytest.mark.parametrize(("block", "count"), [(1, 5), (4, 6), (100, 7)])
def test_block_size_changes_nothing(monkeypatch, block, count):
    monkeypatch.setattr(metrics, "_QUERIES", block)
    # Fewer queries than anywhere else, so that no compiled program is reused.
    scores, labels = _instance()
    few = {"query_identities", "query_cameras"}
    labels = {k: v[:count] if k in few else v for k, v in labels.items()}
    _agree(evaluate(scores[:count], **labels), _expected(scores[:count], labels))


def test_inside_jit_with_known_and_unknown_labels():
    scores, labels = _instance()
    eager = evaluate(scores, **labels)
    known = jax.jit(lambda s: evaluate(s, **labels))(scores)
    unknown = jax.jit(lambda s, labels: evaluate(s, **labels))(scores, labels)
    for jitted in (known, unknown):
        _agree(jitted, eager._asdict(), 1e-6)


def test_a_sharded_gallery_gives_the_same():
    scores, labels = _instance()
    scores = np.tile(scores, (1, 8))
    labels["gallery_identities"] = np.tile(labels["gallery_identities"], 8)
    labels["gallery_cameras"] = np.tile(labels["gallery_cameras"], 8)
    mesh = jax.make_mesh((8,), ("g",), axis_types=(jax.sharding.AxisType.Auto,))
    columns = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "g"))
    _agree(
        evaluate(jax.device_put(scores, columns), **labels),
        evaluate(scores, **labels)._asdict(),
        1e-6,
    )


def test_no_sort_and_no_second_copy_of_the_scores():
    size = (64, 4096)
    labels = metrics._Labels(*(jnp.zeros(n, jnp.int32) for n in (*size, *size)))
    program = metrics._dense_ranks.lower(jnp.zeros(size), labels, width=8).compile()
    text, memory = program.as_text(), program.memory_analysis()
    assert text is not None
    assert memory is not None
    assert "TopK" in text
    assert " sort(" not in text
    assert memory.temp_size_in_bytes < 4 * size[0] * size[1]


@settings(max_examples=30, deadline=None)
@given(
    scores=arrays.arrays(np.float32, (Q, G), elements=st.integers(-4, 4)),
    order=st.permutations(range(G)),
)
def test_order_of_the_gallery_and_scale_do_not_matter(scores, order):
    _, labels = _instance(3)
    # Different scores everywhere, so that no tie depends on the order.
    scores = scores + np.arange(G, dtype=np.float32) / 128
    found = evaluate(scores, **labels)
    moved: dict[str, Any] = labels | {
        name: labels[name][list(order)]
        for name in ("gallery_identities", "gallery_cameras")
    }
    _agree(evaluate(4 * scores[:, order] - 1, **moved), found._asdict(), 1e-6)
    ap = np.asarray(found.average_precision)
    assert (
        (ap[np.asarray(found.valid)] > 0) & (ap[np.asarray(found.valid)] <= 1)
    ).all()
    assert (np.diff(found.cmc) >= 0).all()


def test_labels_wider_than_int32_keep_their_meaning():
    scores, labels = _instance()
    wide: dict[str, Any] = {
        name: np.where(values == -1, -1, values.astype(np.int64) + 2**40)
        for name, values in labels.items()
    }
    _agree(evaluate(scores, **wide), evaluate(scores, **labels)._asdict(), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full((Q, G), np.nan)}, "scores: 9 row.s. hold NaN, first row 0"),
        ({"scores": np.zeros(3)}, r"scores: expected scores \[Q, G\]"),
        ({"query_cameras": None}, "query_cameras: is None; give both"),
        ({"gallery_identities": np.zeros(3, int)}, r"gallery_identities: .*\(57,\)"),
        ({"query_identities": np.full(Q, 99)}, "no query has a positive left"),
        ({"top": 0}, "top: expected at least 1, got 0"),
        ({"max_rank": 1.5}, "max_rank: expected a whole number"),
        ({"ap_denominator": "all"}, "ap_denominator: expected one of 'positives'"),
        ({"ap_method": "area"}, "ap_method: expected one of 'precision'"),
        (
            {"scores": Ranking(jnp.full((Q, 2), 60), jnp.zeros((Q, 2)))},
            "scores.ids: expected gallery indices from 0 to 56, got 60 to 60",
        ),
        (
            {"scores": Ranking(jnp.full((Q, 2), 6), jnp.zeros((Q, 2)))},
            "scores.ids: row 0 lists an image twice",
        ),
        (
            {"scores": Ranking(jnp.zeros((Q, 2)), jnp.zeros((Q, 2)))},
            r"scores.ids: expected integers \[Q, K\]",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    scores, labels = _instance()
    arguments = {"scores": scores, **labels, **change}
    with pytest.raises(ValueError, match=message):
        evaluate(arguments.pop("scores"), **arguments)
