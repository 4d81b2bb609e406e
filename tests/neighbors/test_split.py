"""Sets of any number split over a mesh: what is not split is what they must equal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from dex_jax import neighbors, rerank
from dex_jax.neighbors import SplitRows, nearest_neighbors, split_rows
from dex_jax.rerank import Embeddings, chain, parse, steps

pytestmark = pytest.mark.usefixtures("quick_programs")

RNG = np.random.default_rng(0)
Q, G, D = 5, 51, 8
QUERY = RNG.standard_normal((Q, D)).astype(np.float32)
GALLERY = RNG.standard_normal((G, D)).astype(np.float32)
GALLERY[50] = GALLERY[3]  # the last row, which padding repeats, has a duplicate
TRACKS = RNG.integers(0, 9, G)
CAMERAS = RNG.integers(0, 3, Q), RNG.integers(0, 3, G)
SCORES = RNG.random((Q, G)).astype(np.float32)
EMBEDDINGS = Embeddings(QUERY, GALLERY, TRACKS)


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4,), ("gallery",))


@pytest.fixture(scope="module")
def split(mesh) -> SplitRows:
    return split_rows(GALLERY, mesh)


def _equal(found, wanted):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if other.dtype == np.float32:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(one, other)


def test_rows_are_padded_and_placed(split):
    assert split.shape == (G, D) and len(split) == G
    assert split.rows.shape == (52, D)
    assert {s.data.shape for s in split.rows.addressable_shards} == {(13, D)}
    np.testing.assert_array_equal(np.asarray(split.rows)[-1], GALLERY[-1])
    np.testing.assert_array_equal(np.asarray(split), GALLERY)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_few_rows_are_split_too(mesh, size):
    found = nearest_neighbors(QUERY, split_rows(GALLERY[:size], mesh), k=size)
    _equal(found, nearest_neighbors(QUERY, GALLERY[:size], k=size))


def test_rows_may_be_split_over_some_axes():
    mesh = jax.make_mesh((2, 4), ("a", "b"))
    split = split_rows(GALLERY, mesh, axes="b")
    assert {s.data.shape for s in split.rows.addressable_shards} == {(13, D)}
    both = split_rows(GALLERY, mesh)
    assert {s.data.shape for s in both.rows.addressable_shards} == {(7, D)}
    for rows in (split, both):
        found = nearest_neighbors(QUERY, rows, k=4)
        _equal(found, nearest_neighbors(QUERY, GALLERY, k=4))
    with pytest.raises(ValueError, match=r"axes: expected some of .*'a', 'b'.*got 'c'"):
        split_rows(GALLERY, mesh, axes=("a", "c"))


@pytest.mark.parametrize("form", ["cpu", "wide"])
@pytest.mark.parametrize(
    "call",
    [
        lambda g: nearest_neighbors(QUERY, g, k=6),
        lambda g: nearest_neighbors(QUERY, g, k=G),
        lambda g: nearest_neighbors(g, g, k=6),
        lambda g: nearest_neighbors(g, g, k=G - 1, exclude_self=True),
        lambda g: rerank.cosine_similarity(QUERY, g),
        lambda g: rerank.alpha_query_expansion(QUERY, g, k=4),
        lambda g: rerank.tracklet_query_expansion(
            QUERY, g, TRACKS, k=4, within="similarity"
        ),
        lambda g: rerank.k_reciprocal(QUERY, g, k1=6, k2=3),
        lambda g: rerank.k_reciprocal(QUERY, g, k1=54, k2=1),
        lambda g: rerank.tracklet_k_reciprocal(QUERY, g, TRACKS, k1=4),
        lambda g: rerank.diffusion(QUERY, g, k=6, k_query=3),
    ],
)
def test_functions_take_split_rows(form, call, split):
    with neighbors.form(form):
        _equal(call(split), call(GALLERY))


@pytest.mark.parametrize(
    "call",
    [
        lambda g: rerank.database_augmentation(g, k=4, alpha=1.0),
        lambda g: rerank.tracklet_means(g, TRACKS, weights=SCORES[0]),
    ],
)
def test_changed_galleries_are_split_like_the_given_one(call, split):
    found, wanted = call(split), call(GALLERY)
    assert isinstance(found, SplitRows) and found.shape == (G, D)
    _equal(np.asarray(found), wanted)
    # What pads it repeats its last row, so that it changes no minimum.
    rows = np.asarray(found.rows)
    np.testing.assert_array_equal(rows[-1], rows[G - 1])
    once_more = rerank.k_reciprocal(QUERY, found, k1=6, k2=2)
    _equal(once_more, rerank.k_reciprocal(QUERY, wanted, k1=6, k2=2))


@pytest.mark.parametrize("top", [None, 7])
@pytest.mark.parametrize(
    "text",
    [
        "none",
        "dex(k=4),dba(k=3),k_reciprocal(k1=5,k2=2),tracklet",
        "tracklet_means,diffusion(k=5,k_query=3)",
    ],
)
def test_chains_take_split_rows(top, text, split):
    pipeline = parse(text)
    found = pipeline(EMBEDDINGS._replace(gallery=split), top=top)
    _equal(found, pipeline(EMBEDDINGS, top=top))


@pytest.mark.parametrize("top", [None, 7, G])
@pytest.mark.parametrize("rank", ["cosine", "diffusion", "tracklet_k_reciprocal"])
def test_refine_steps_stay_with_their_images(rank, top, split):
    pipeline = chain(
        getattr(steps, rank)(),
        steps.side_bias(QUERY, GALLERY, weight=0.5),
        steps.same_camera(*CAMERAS, penalty=0.25),
        steps.add_scores(-SCORES, weight=2.0),
    )
    found = pipeline(EMBEDDINGS._replace(gallery=split), top=top)
    _equal(found, pipeline(EMBEDDINGS, top=top))


def test_a_cache_tells_padding_from_rows(mesh):
    """The same array stands for 51 rows and for 52 of which the last two are equal."""
    more = np.concatenate([GALLERY, GALLERY[-1:]])
    for first, second, plain in (
        (GALLERY, more, more),
        (more, GALLERY, GALLERY),
    ):
        cache, pipeline = rerank.NeighborCache(), parse("diffusion(k=5,k_query=3)")
        pipeline(Embeddings(QUERY, split_rows(first, mesh)), cache=cache)
        found = pipeline(Embeddings(QUERY, split_rows(second, mesh)), cache=cache)
        assert cache.searches == 2
        _equal(found, pipeline(Embeddings(QUERY, plain)))


@pytest.mark.parametrize("size", [51, 52])
def test_what_was_split_comes_back_split(mesh, size):
    rows, tracks = split_rows(RNG.random((size, D)), mesh), np.arange(size) // 2
    step = steps.dba(k=2)(Embeddings(QUERY, rows))
    for found in (
        rerank.database_augmentation(rows, k=2),
        rerank.tracklet_means(rows, tracks),
        step.gallery,
    ):
        assert isinstance(found, SplitRows) and found.shape == (size, D)


def test_a_set_is_itself_by_its_rows_and_not_by_its_padding(mesh, split):
    more = np.concatenate([GALLERY, GALLERY[-1:]])
    wanted = nearest_neighbors(GALLERY, GALLERY, k=3, exclude_self=True)
    for pair in (
        (GALLERY, split),
        (split, GALLERY),
        (split, split_rows(GALLERY, mesh)),
    ):
        _equal(nearest_neighbors(*pair, k=3, exclude_self=True), wanted)
    for pair in ((split, more), (more, split), (split, split_rows(more, mesh))):
        with pytest.raises(ValueError, match="queries must be the database itself"):
            nearest_neighbors(*pair, k=3, exclude_self=True)


def test_queries_may_be_split_too(split):
    wanted = nearest_neighbors(GALLERY, QUERY, k=3)
    _equal(nearest_neighbors(split, QUERY, k=3), wanted)
    _equal(jax.jit(lambda x: nearest_neighbors(x, QUERY, k=3))(split), wanted)


def test_changed_galleries_go_on_on_axes_of_explicit_type():
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
    split = split_rows(GALLERY, mesh)
    assert isinstance(split.rows.sharding, NamedSharding)
    assert split.rows.sharding.mesh == mesh
    means = rerank.tracklet_means(GALLERY, TRACKS)
    wanted = rerank.cosine_similarity(QUERY, rerank.database_augmentation(means, k=3))

    def scores(rows: SplitRows) -> jax.Array:
        smooth = rerank.database_augmentation(rerank.tracklet_means(rows, TRACKS), k=3)
        return rerank.cosine_similarity(QUERY, smooth)

    _equal(scores(split), wanted)
    with jax.set_mesh(mesh):
        _equal(scores(split), wanted)
        _equal(jax.jit(scores)(split), wanted)


def test_axes_are_names_of_the_mesh(mesh):
    wrong: Any = (0, ("gallery", "gallery"), ())
    for axes in wrong:
        with pytest.raises(ValueError, match="axes: expected different axes of"):
            split_rows(GALLERY, mesh, axes=axes)
    with pytest.raises(ValueError, match="rows: expected known values"):
        jax.jit(lambda x: split_rows(x, mesh))(GALLERY)


def test_a_caller_s_jit_takes_split_rows(split):
    def scores(gallery):
        return rerank.diffusion(QUERY, gallery, k=6, k_query=3)

    _equal(jax.jit(scores)(split), scores(GALLERY))


def test_rows_are_checked_by_their_own_numbers(mesh):
    bad = GALLERY.copy()
    bad[-1] = 0
    with pytest.raises(ValueError, match=r"database: 1 row\(s\) are all zero.*row 50"):
        nearest_neighbors(QUERY, split_rows(bad, mesh), k=2)
    with pytest.raises(ValueError, match="rows: expected rows"):
        split_rows(GALLERY[0], mesh)


def test_a_count_beyond_the_rows_is_cut_to_them(split):
    with pytest.warns(UserWarning, match="k=52 is more than the 51 there are"):
        found = nearest_neighbors(QUERY, split, k=52)
    assert found.ids.shape == (Q, G)


def test_another_type_of_numbers_becomes_float32(mesh):
    rows = split_rows(jnp.asarray(GALLERY, jnp.bfloat16), mesh)
    assert rows.rows.dtype == jnp.float32
