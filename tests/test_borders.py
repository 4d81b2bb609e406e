"""What the public border refuses or mends, for every function alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dex_jax import losses, metrics, neighbors, rerank
from dex_jax.rerank import Embeddings, parse, steps

pytestmark = pytest.mark.usefixtures("quick_programs")

RNG = np.random.default_rng(0)
Q, G, D = 3, 16, 8
QUERY = RNG.standard_normal((Q, D)).astype(np.float32)
GALLERY = RNG.standard_normal((G, D)).astype(np.float32)
SCORES = RNG.standard_normal((Q, G)).astype(np.float32)
TRACKS, IDENTITIES = np.arange(G) // 2, np.arange(G) % 4

TAKE_SCORES = {
    "top_k": lambda s: rerank.top_k(s, k=2),
    "tracklet_pull_in": lambda s: rerank.tracklet_pull_in(s, TRACKS),
    "fuse_scores": lambda s: rerank.fuse_scores([s, s]),
    "side_distance_bias": lambda s: rerank.side_distance_bias(
        s, QUERY, GALLERY, weight=0.5
    ),
    "same_camera_penalty": lambda s: rerank.same_camera_penalty(
        s, np.arange(Q), IDENTITIES
    ),
    "add_scores": steps.add_scores,
    "evaluate": lambda s: metrics.evaluate(
        s, query_identities=np.arange(Q), gallery_identities=IDENTITIES
    ),
}
TAKE_ROWS = {
    "nearest_neighbors": lambda g: neighbors.nearest_neighbors(QUERY, g, k=2),
    "cosine_similarity": lambda g: rerank.cosine_similarity(QUERY, g),
    "k_reciprocal": lambda g: rerank.k_reciprocal(QUERY, g, k1=3, k2=2),
    "diffusion": lambda g: rerank.diffusion(QUERY, g, k=3, k_query=2),
    "database_augmentation": lambda g: rerank.database_augmentation(g, k=2),
    "tracklet_means": lambda g: rerank.tracklet_means(g, TRACKS),
    "chain": lambda g: parse("aqe(k=2)")(Embeddings(QUERY, g)),
}


def _split(array: np.ndarray, kind: AxisType) -> jax.Array:
    """Columns over four devices, as the package's own scores lie."""
    mesh = jax.make_mesh((4,), ("gallery",), axis_types=(kind,))
    sharding = NamedSharding(mesh, PartitionSpec(None, "gallery"))
    return jax.device_put(array, sharding)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", TAKE_SCORES)
def test_nan_in_a_part_of_the_scores_is_refused(name, kind):
    """A maximum over devices loses NaN."""
    bad = SCORES.copy()
    bad[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 row\(s\) hold NaN, first row 1"):
        TAKE_SCORES[name](_split(bad, kind))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", TAKE_ROWS)
def test_nan_in_a_part_of_the_rows_is_refused(name, kind):
    bad = GALLERY.copy()
    bad[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 row\(s\) hold NaN or inf.*first row 5"):
        TAKE_ROWS[name](_split(bad, kind))


@pytest.mark.parametrize("size", [1e300, 1e39, 1e-45, 1e-300])
def test_rows_that_float32_cannot_hold_keep_their_direction(size):
    wanted = neighbors.nearest_neighbors(QUERY, GALLERY, k=3)
    wide = GALLERY.astype(np.float64) * size
    found = neighbors.nearest_neighbors(QUERY.astype(np.float64) * size, wide, k=3)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        neighbors.nearest_neighbors(np.full((2, D), np.inf), GALLERY, k=3)


@pytest.mark.parametrize("value", [-1, 0, 1, "True", None, np.nan, [True]])
def test_flags_are_true_or_false(value):
    calls = {
        "exclude_self": lambda: neighbors.nearest_neighbors(
            GALLERY, GALLERY, k=2, exclude_self=value
        ),
        "normalize": lambda: losses.batch_hard_triplet(
            QUERY, [1, 1, 2], normalize=value
        ),
        "remat": lambda: rerank.diffusion(QUERY, GALLERY, k=2, k_query=2, remat=value),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}: expected True or False, got"):
            call()


@pytest.mark.parametrize("alpha", [float(np.finfo(np.float32).max), 1 - 1e-9, 1])
def test_a_bound_holds_in_the_type_of_the_program(alpha):
    for solver in ("power", "cg"):
        with pytest.raises(ValueError, match="alpha: expected a number of at least 0"):
            rerank.diffusion(QUERY, GALLERY, k=2, k_query=2, alpha=alpha, solver=solver)


def test_masked_entries_and_times_are_refused():
    masked = np.ma.array(IDENTITIES, mask=IDENTITIES == 0)
    with pytest.raises(ValueError, match="gallery_identities: holds masked entries"):
        metrics.evaluate(SCORES, query_identities=[0, 1, 2], gallery_identities=masked)
    with pytest.raises(ValueError, match="scores: holds masked entries"):
        rerank.top_k(np.ma.array(SCORES, mask=SCORES > 1), k=1)
    times = np.arange(2).astype("m8[s]")
    with pytest.raises(ValueError, match="scores: expected numbers or text, got dtype"):
        rerank.top_k(times[None], k=1)
    with pytest.raises(ValueError, match="k: expected a whole number"):
        rerank.top_k(SCORES, k=times[1])


def test_one_large_tracklet_is_noted_beside_images_without_one():
    with pytest.warns(UserWarning, match="15 of 16 images have the id of image 0"):
        rerank.tracklet_means(GALLERY, [0] * 15 + [-1])


def test_steps_do_not_follow_what_is_written_later():
    cameras, weights = np.zeros(G, np.int32), np.ones(G, np.float32)
    embeddings = Embeddings(QUERY, GALLERY, TRACKS)
    camera = steps.same_camera(np.zeros(Q, np.int32), cameras, penalty=1.0)
    means = steps.tracklet_means(weights=weights)
    before = camera(SCORES, embeddings), means(embeddings).gallery
    cameras[:], weights[1] = 5, 100
    np.testing.assert_array_equal(camera(SCORES, embeddings), before[0])
    after = np.asarray(means(embeddings).gallery)
    np.testing.assert_array_equal(after, np.asarray(before[1]))


def test_weights_of_a_step_are_checked_when_it_is_made():
    for weights, words in (([-1.0] * G, "at least 0"), (["a"] * G, "real numbers")):
        with pytest.raises(ValueError, match=f"weights: expected .*{words}"):
            steps.tracklet_means(weights=weights)


def test_a_chain_names_what_it_was_called_with():
    wrong: Any = (QUERY, GALLERY), 0, None
    with pytest.raises(ValueError, match=r"embeddings: expected rerank\.Embeddings"):
        parse("dex")(wrong[0])
    with pytest.raises(ValueError, match="cache: expected a NeighborCache, got 0"):
        parse("dba(k=1)")(Embeddings(QUERY, GALLERY), cache=wrong[1])
    with pytest.raises(ValueError, match="dba has no option None"):
        parse("dba").with_option("dba", wrong[2], 1)


def _cubes_of_augmented(gallery: jax.Array) -> jax.Array:
    augmented = steps.dba(k=2)(Embeddings(QUERY, gallery)).gallery
    return jnp.sum(jnp.asarray(augmented) ** 3)


@pytest.mark.parametrize(
    "loss",
    [
        lambda g: neighbors.nearest_neighbors(QUERY, g, k=2).scores.sum(),
        lambda g: parse("aqe(k=2),diffusion(k=2,k_query=2)")(
            Embeddings(QUERY, g), top=3
        ).scores.sum(),
        _cubes_of_augmented,
    ],
)
def test_derivatives_on_axes_of_explicit_type(loss):
    """Ids are known while all arguments are traced."""
    mesh = jax.make_mesh((4,), ("gallery",), axis_types=(AxisType.Explicit,))
    split = jax.device_put(GALLERY, NamedSharding(mesh, PartitionSpec("gallery")))
    wanted = jax.grad(loss)(jnp.asarray(GALLERY))
    with jax.set_mesh(mesh):
        found = jax.grad(loss)(split)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_tensors_of_any_strides_and_as_options():
    torch = pytest.importorskip("torch")
    tokens = torch.from_numpy(np.stack([GALLERY] * 3, axis=1)).bfloat16()
    wanted = neighbors.nearest_neighbors(QUERY, tokens[:, 0].float().numpy(), k=2)
    wide = torch.from_numpy(np.repeat(GALLERY, 2, axis=1)).bfloat16()
    pair = torch.complex(tokens[:, 0].float(), -tokens[:, 0].float())
    for rows in (tokens[:, 1], wide[:, ::2], pair.conj().imag, list(tokens[:, 2])):
        found = neighbors.nearest_neighbors(QUERY, rows, k=2)
        np.testing.assert_array_equal(found.ids, wanted.ids)
    half = torch.tensor(0.5, requires_grad=True)
    for call in (
        lambda w: rerank.side_distance_bias(SCORES, QUERY, GALLERY, weight=w),
        lambda w: rerank.fuse_scores([SCORES, SCORES], weights=[w, w]),
        lambda w: rerank.same_camera_penalty(SCORES, [0, 1, 2], IDENTITIES, penalty=w),
        lambda w: losses.circle(QUERY, [1, 1, 2], margin=w),
        lambda w: losses.label_smoothed_cross_entropy(QUERY, [1, 1, 2], epsilon=w),
    ):
        np.testing.assert_array_equal(call(half), call(0.5))
