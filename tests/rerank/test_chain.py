"""Chains: orders, the static plan, one result however it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dex_jax.rerank import (
    Embeddings,
    _kinds,
    alpha_query_expansion,
    chain,
    cosine_similarity,
    database_augmentation,
    diffusion,
    fuse_scores,
    k_reciprocal,
    parse,
    same_camera_penalty,
    side_distance_bias,
    steps,
    top_k,
    tracklet_k_reciprocal,
    tracklet_means,
    tracklet_pull_in,
    tracklet_query_expansion,
)
from tests.rerank.cases import G, Q, clusters

pytestmark = pytest.mark.usefixtures("quick_programs")

QUERY, GALLERY, TRACKS = clusters()
EMBEDDINGS = Embeddings(QUERY, GALLERY, TRACKS)
RANKS = {
    "cosine": (steps.cosine(), cosine_similarity),
    "k_reciprocal": (
        steps.k_reciprocal(k1=9, k2=4),
        lambda q, g: k_reciprocal(q, g, k1=9, k2=4),
    ),
    "diffusion": (
        steps.diffusion(k=9, k_query=7),
        lambda q, g: diffusion(q, g, k=9, k_query=7),
    ),
}


@pytest.mark.parametrize("name", RANKS)
def test_a_chain_is_its_steps_applied_by_hand(name):
    step, function = RANKS[name]
    query = tracklet_query_expansion(QUERY, GALLERY, TRACKS, k=7)
    gallery = database_augmentation(GALLERY, k=5, alpha=1.0)
    expected = tracklet_pull_in(function(query, gallery), TRACKS)
    pipeline = chain(steps.dex(k=7), steps.dba(k=5, alpha=1.0), step, steps.tracklet())
    scores = pipeline(EMBEDDINGS)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    best = pipeline(EMBEDDINGS, top=7)
    np.testing.assert_array_equal(best.ids, top_k(scores, k=7).ids)
    np.testing.assert_allclose(best.scores, top_k(scores, k=7).scores, atol=1e-6)


def test_dba_first_expands_the_queries_over_the_augmented_gallery():
    gallery = database_augmentation(GALLERY, k=5)
    query = alpha_query_expansion(QUERY, gallery, k=7)
    expected = cosine_similarity(query, gallery)
    scores = chain(steps.dba(k=5), steps.alpha_qe(k=7))(EMBEDDINGS)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_steps_alone():
    after = steps.dba(k=5)(EMBEDDINGS)
    gallery = np.asarray(after.gallery)
    np.testing.assert_allclose(gallery, database_augmentation(GALLERY, k=5))
    np.testing.assert_array_equal(after.tracklet_ids, TRACKS)
    scores = steps.diffusion(k=9, k_query=7)(EMBEDDINGS)
    np.testing.assert_allclose(scores, RANKS["diffusion"][1](QUERY, GALLERY), atol=1e-6)
    pulled = steps.tracklet()(scores, EMBEDDINGS)
    np.testing.assert_array_equal(pulled, tracklet_pull_in(scores, TRACKS))


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("top", [7, G])
def test_masked_images_come_last_as_minus_infinity(name, top):
    """All but five images are of the query's camera, and masked."""
    step, function = RANKS[name]
    gallery_cameras = np.zeros(G, int)
    gallery_cameras[[1, 4, 8, 20, 33]] = 1
    masked = steps.same_camera(np.zeros(Q, int), gallery_cameras, penalty=np.inf)
    best = chain(step, masked)(EMBEDDINGS, top=top)
    scores = np.asarray(function(QUERY, GALLERY))
    for row, ids, values in zip(scores, best.ids, best.scores, strict=True):
        seen = sorted([1, 4, 8, 20, 33], key=lambda i: (-row[i], i))
        np.testing.assert_allclose(values[:5], row[seen], atol=1e-5)
        np.testing.assert_array_equal(values[5:], -np.inf)
        rest = [i for i in range(G) if i not in seen]
        assert ids[5:].tolist() == rest[: top - 5]


@pytest.mark.parametrize("name", RANKS)
def test_side_facts_in_a_chain(name):
    step, function = RANKS[name]
    side = QUERY[:, :3], GALLERY[:, :3]
    cameras = np.arange(Q) % 2, np.arange(G) % 3
    other = cosine_similarity(QUERY[:, 4:], GALLERY[:, 4:])
    scores = side_distance_bias(function(QUERY, GALLERY), *side, weight=0.1)
    scores = fuse_scores([scores, other], weights=[1.0, 0.25])
    scores = same_camera_penalty(scores, *cameras)
    scores = tracklet_pull_in(scores, TRACKS)
    pipeline = chain(
        step,
        steps.side_bias(*side, weight=0.1),
        steps.add_scores(other, weight=0.25),
        steps.same_camera(*cameras),
        steps.tracklet(),
    )
    np.testing.assert_allclose(pipeline(EMBEDDINGS), scores, atol=1e-5)
    for top in (7, G):
        best, dense = pipeline(EMBEDDINGS, top=top), top_k(scores, k=top)
        np.testing.assert_array_equal(best.ids, dense.ids)
        np.testing.assert_allclose(best.scores, dense.scores, atol=1e-5)


def test_whole_tracklets_in_a_chain():
    gallery = tracklet_means(GALLERY, TRACKS)
    scores = chain(steps.tracklet_means())(EMBEDDINGS)
    expected = cosine_similarity(QUERY, gallery)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    pipeline = chain(steps.tracklet_k_reciprocal())
    expected = tracklet_k_reciprocal(QUERY, GALLERY, TRACKS)
    np.testing.assert_array_equal(pipeline(EMBEDDINGS), expected)
    best = pipeline(EMBEDDINGS, top=G)
    np.testing.assert_array_equal(best.ids, top_k(expected, k=G).ids)


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        ("dex(k=7)", []),
        ("dex(k=7),diffusion(k=9)", [9]),
        ("dba(k=5)", [6]),
        ("dba(k=5),dex(k=7),k_reciprocal(k1=9,k2=4)", [6, 10]),
        ("alpha_qe(k=7),dba(k=5,include_self=top_k),diffusion(k=9)", [5, 9]),
    ],
)
def test_one_graph_for_each_stretch_of_the_same_gallery(monkeypatch, text, widths):
    seen = []
    search = _kinds.self_search

    def counted(rows, **options):
        seen.append(options["k"])
        return search(rows, **options)

    monkeypatch.setattr(_kinds, "self_search", counted)
    parse(text)(EMBEDDINGS, top=3)
    assert seen == widths


@pytest.mark.parametrize("top", [None, 5])
def test_only_all_scores_make_an_array_of_queries_by_gallery(top):
    # More cosines than the search holds at a time.
    query, gallery = jnp.ones((4200, 4)), jnp.ones((2100, 4))
    pipeline = parse("alpha_qe(k=3),diffusion(k=4,k_query=3)")
    run = jax.jit(lambda q, g: pipeline(Embeddings(q, g), top=top))
    text = str(run.lower(query, gallery).compile().as_text())
    assert ("f32[4200,2100]" in text) == (top is None)


def test_same_inside_the_callers_jit_and_vmap():
    def run(alpha):
        pipeline = chain(steps.dex(k=7, alpha=alpha), RANKS["diffusion"][0])
        return pipeline(EMBEDDINGS, top=7)

    alphas = jnp.array([0.0, 3.0])
    found = jax.jit(jax.vmap(run))(alphas)
    for i, alpha in enumerate(alphas):
        plain = run(float(alpha))
        np.testing.assert_array_equal(found.ids[i], plain.ids)
        np.testing.assert_allclose(found.scores[i], plain.scores, atol=1e-6)


@pytest.fixture(scope="module")
def split_gallery():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    return jax.device_put(GALLERY, NamedSharding(mesh, PartitionSpec("a")))


@pytest.mark.parametrize("top", [3, 7, 40, None])
@pytest.mark.parametrize(
    "text",
    [
        "dex(k=7),dba(k=5),diffusion(k=9,k_query=7),tracklet",
        "diffusion(k=9,k_query=7,solver=cg)",
        "dex(k=7),dba(k=5),k_reciprocal(k1=9,k2=4),tracklet",
        "k_reciprocal(k1=9,k2=1)",
    ],
)
def test_gallery_split_over_a_mesh(split_gallery, text, top):
    # Every device has five of the images, and at most one of the six queries.
    plain = parse(text)(EMBEDDINGS, top=top)
    found = parse(text)(EMBEDDINGS._replace(gallery=split_gallery), top=top)
    if top is None:
        np.testing.assert_allclose(found, plain, atol=1e-6)
        return
    np.testing.assert_array_equal(found.ids, plain.ids)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)


@pytest.mark.parametrize("rank", ["k_reciprocal", "diffusion"])
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_tiles_of_a_split_gallery_know_where_they_lie(rank, devices):
    # Five queries: the last device's share begins before the others have ended.
    mesh = Mesh(np.array(jax.devices()[:devices]), ("a",))
    split = jax.device_put(GALLERY, NamedSharding(mesh, PartitionSpec("a")))
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(5, 3)), rng.normal(size=(G, 3))
    pipeline = chain(RANKS[rank][0], steps.side_bias(*sides, weight=0.5))
    plain = pipeline(Embeddings(QUERY[:5], GALLERY), top=9)
    found = pipeline(Embeddings(QUERY[:5], split), top=9)
    np.testing.assert_array_equal(found.ids, plain.ids)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)


def test_what_a_step_makes_of_split_rows_stays_split(split_gallery):
    embeddings = EMBEDDINGS._replace(gallery=split_gallery)
    after = jnp.asarray(steps.dba(k=5)(embeddings).gallery)
    assert after.sharding.is_equivalent_to(split_gallery.sharding, 2)


def test_devices_share_the_work_of_the_last_step(split_gallery):
    # Each compares the queries with its own images, or spreads its own queries.
    query = jnp.asarray(QUERY)
    scores = k_reciprocal(query, split_gallery, k1=9, k2=4)
    assert scores.sharding.shard_shape(scores.shape) == (Q, G // 8)
    scores = diffusion(jnp.tile(query, (4, 1)), split_gallery, k=9, k_query=7)
    assert scores.sharding.shard_shape(scores.shape) == (4 * Q // 8, G)


def test_a_chain_of_no_steps_is_plain_cosine():
    expected = cosine_similarity(QUERY, GALLERY)
    np.testing.assert_array_equal(chain()(EMBEDDINGS), expected)


def test_a_chain_knows_its_steps_and_is_shown_as_text():
    pipeline = chain(steps.dex(k=7, alpha=2.0), steps.cosine(), steps.tracklet())
    assert [step.name for step in pipeline.steps] == ["dex", "tracklet"]
    assert str(chain(*pipeline.steps)) == repr(pipeline) == "dex(k=7),tracklet"
    assert (str(chain()), chain().steps) == ("none", ())
    # One entry of an array is a number like any other.
    step = steps.dba(k=jnp.array(7), alpha=jnp.array(0.1), k_max=9)
    alpha = float(np.float32(0.1))
    assert step.options == (("k", 7), ("alpha", alpha), ("k_max", 9))
    assert repr(step) == f"dba(k=7,alpha={alpha!r},k_max=9)"


def test_what_text_cannot_hold_is_shown_as_dots():
    scores, cameras = np.zeros((Q, G)), (np.zeros(Q, int), np.zeros(G, int))
    links = (
        steps.tracklet_means(weights=np.ones(G)),
        steps.side_bias(QUERY, GALLERY, weight=0.5),
        steps.same_camera(*cameras),
        steps.add_scores(scores),
    )
    shown = ",".join(f"{link.name}(...)" for link in links)
    assert str(chain(*links)) == shown
    texts = []
    jax.jit(lambda alpha: texts.append(str(chain(steps.dex(k=3, alpha=alpha)))))(0.5)
    assert texts == ["dex(...)"]


def test_one_option_of_a_step_is_changed():
    pipeline = parse("dba,dex(k=7),dex,tracklet")
    changed = pipeline.with_option("dex", "alpha", 0.5)
    assert str(changed) == "dba,dex(k=7,alpha=0.5),dex,tracklet"
    assert str(changed.with_option("dex", "k", 20)).startswith("dba,dex(alpha=0.5),dex")
    assert pipeline.with_option("dex", "k", 9, replace=False) is pipeline
    kept = pipeline.with_option("dba", "k", 9, replace=False)
    assert str(kept) == "dba(k=9),dex(k=7),dex,tracklet"
    expected = chain(steps.dex(k=7, alpha=0.5))(EMBEDDINGS)
    found = parse("dex(k=7)").with_option("dex", "alpha", 0.5)(EMBEDDINGS)
    np.testing.assert_array_equal(found, expected)
    # A step's arrays go with it.
    scores = np.arange(Q * G, dtype=np.float32).reshape(Q, G)
    found = chain(steps.add_scores(scores)).with_option("add_scores", "weight", 0.5)
    expected = chain(steps.add_scores(scores, weight=0.5))(EMBEDDINGS)
    np.testing.assert_array_equal(found(EMBEDDINGS), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("dbaa", "k", 5), "^'dbaa' is not a step of 'dex,dba'"),
        (("cosine", "k", 5), "^'cosine' is not a step of 'dex,dba'"),
        (("dba", "alfa", 5), "^dba has no option 'alfa'; .*; did you mean alpha"),
        (("dba", "k", 0), "^dba: k: expected at least 1, got 0"),
        (("dba", "k", 5.0), "^dba: k: expected a whole number, got 5.0"),
    ],
)
def test_an_option_that_cannot_be_changed_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse("dex,dba").with_option(*change)


def test_a_count_beyond_all_counts_is_refused():
    for option in ("k", "k_max"):
        with pytest.raises(ValueError, match=rf"^dex: {option}: expected at most 2147"):
            parse("dex(k=5)").with_option("dex", option, 10**30)


def test_top_beyond_the_gallery_warns_once():
    with pytest.warns(UserWarning, match="top=100 is more than the 40") as caught:
        assert parse("none")(EMBEDDINGS, top=100).ids.shape == (Q, G)
    assert len(caught) == 1


@pytest.mark.parametrize("case", ["a", "b"])
@pytest.mark.parametrize("order", ["dex_first", "dba_first"])
def test_reference_vectors(golden, case, order):
    x = np.load(golden / "rerank" / f"{case}_inputs.npz")
    vectors = np.load(golden / "rerank" / f"{case}_chain.npz")
    negative = np.zeros(len(x["q"]), bool)
    if (case, order) == ("b", "dex_first"):
        # The one query that meets a negative cosine, which is clipped here alone.
        negative[29] = True
    dba = "dba(alpha=2,include_self=top_k)"
    expand = f"dex,{dba}" if order == "dex_first" else f"{dba},dex"
    for rank, name in (("k_reciprocal", "kreciprocal"), ("diffusion", "diffusion")):
        expected = vectors[f"{order}_dba_a2_{name}"]
        embeddings = Embeddings(x["q"], x["g"], x["g_track"])
        found = np.asarray(parse(f"{expand},{rank}")(embeddings))
        found = 1 - found if rank == "k_reciprocal" else found
        error = np.abs(found - expected)[~negative]
        assert error.max() < 1e-5 * max(1, expected.max())
        if rank == "k_reciprocal":
            best = parse(f"{expand},{rank},tracklet")(embeddings, top=100)
            pulled = vectors[f"{order}_dba_a2_{name}_pulled_in"][:, :100]
            np.testing.assert_array_equal(best.ids[~negative], pulled[~negative])


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (
            (steps.tracklet(), steps.dex()),
            r"dex cannot stand there in \(tracklet, dex\); allowed are expand steps",
        ),
        ((steps.cosine(), steps.diffusion()), "at most one rank step"),
        ((steps.diffusion(), steps.dba()), "dba cannot stand there"),
        ((steps.dex(), "dba"), "expected steps of rerank.steps, got 'dba'"),
    ],
)
def test_orders_that_make_no_sense(links, message):
    with pytest.raises(ValueError, match=message):
        chain(*links)


def test_chain_says_what_is_wrong():
    with pytest.raises(ValueError, match="tracklet_ids: dex, tracklet needs them"):
        parse("dex,dba,tracklet")(Embeddings(QUERY, GALLERY))
    with pytest.raises(ValueError, match="top: expected at least 1, got 0"):
        chain()(EMBEDDINGS, top=0)
    camera = steps.same_camera(np.zeros(3, int), np.zeros(G, int))
    with pytest.raises(ValueError, match=r"same_camera: was made for .*\(3, 40\)"):
        chain(camera)(EMBEDDINGS)
    camera = steps.same_camera(np.zeros(Q, int), np.zeros(G, int))
    with pytest.raises(ValueError, match="top: same_camera needs all scores"):
        chain(steps.tracklet(), camera)(EMBEDDINGS, top=3)
