"""Images to descriptors: sizes, scales, padding, devices, cache."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from dex_jax.data import Protocol, ReidData, ReidSplit, load
from dex_jax.evaluation import _extraction, scaled_size
from dex_jax.evaluation._extraction import (
    Cache,
    describe,
    describe_data,
    extract,
)
from dex_jax.pipeline import normalize

SIZE = 8


def make_split(count: int = 5, seed: int = 0) -> ReidSplit:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 10, 12, 3), np.uint8)
    names = tuple(f"{seed}/{i}.png" for i in range(count))
    return ReidSplit(pixels, names, np.arange(count) % 2)


def project(weights: jax.Array, images: jax.Array) -> jax.Array:
    """A stand-in network that tells left from right: column means, projected."""
    columns = jnp.stack(
        [
            images[:, :, : images.shape[2] // 2].mean(axis=(1, 2)),
            images[:, :, images.shape[2] // 2 :].mean(axis=(1, 2)),
        ],
        axis=1,
    ).reshape(images.shape[0], 6)
    return columns @ weights


WEIGHTS = np.random.default_rng(9).normal(size=(6, 4)).astype(np.float32)
APPLY = Partial(project, jnp.asarray(WEIGHTS))
QUIET = {"progress": False, "devices": jax.devices()[:1]}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def one_by_one(split: ReidSplit, size: int) -> np.ndarray:
    rows = [
        describe(APPLY, split.take([i]), size=size, batch_size=1, **QUIET).features
        for i in range(len(split))
    ]
    return np.concatenate(rows)


def test_paper_sizes():
    scales = (0.9, 1.0, 1.1, 1.2)
    assert [scaled_size(288, s) for s in scales] == [259, 288, 317, 346]
    for scale in (0.0, -1.0, float("nan"), 17.0):
        with pytest.raises(ValueError, match="scales: expected values in"):
            scaled_size(288, scale)
    with pytest.raises(ValueError, match="leaves no image"):
        scaled_size(2, 0.1)


def test_rows_are_unit_and_those_of_the_network_by_hand():
    split = make_split()
    split = ReidSplit(
        np.asarray(split.images)[:, :SIZE, :SIZE], split.names, split.identities
    )
    found = extract(APPLY, split, image_size=SIZE, batch_size=2, **QUIET)
    by_hand = project(jnp.asarray(WEIGHTS), normalize(np.asarray(split.images)))
    np.testing.assert_allclose(found, unit(np.asarray(by_hand)), atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("batch_size", [2, 5, 7])
def test_padding_of_the_last_batch_leaves_no_trace(batch_size):
    split = make_split()
    found = describe(APPLY, split, size=SIZE, batch_size=batch_size, **QUIET).features
    np.testing.assert_allclose(found, one_by_one(split, SIZE), atol=1e-6)


def test_devices_share_a_batch():
    split = make_split()
    everywhere = describe(APPLY, split, size=SIZE, batch_size=3, progress=False)
    np.testing.assert_allclose(everywhere.features, one_by_one(split, SIZE), atol=1e-6)


def test_scales_are_averaged_or_put_side_by_side():
    split = make_split()
    small, large = one_by_one(split, 8), one_by_one(split, 9)
    options = {"image_size": SIZE, "batch_size": 5, "scales": (1.0, 1.1), **QUIET}
    np.testing.assert_allclose(
        extract(APPLY, split, **options), unit(small + large), atol=1e-6
    )
    wide = extract(APPLY, split, method="concat", **options)
    np.testing.assert_allclose(
        wide, np.concatenate([small, large], axis=1) / np.sqrt(2), atol=1e-6
    )
    # Side by side in the order that was asked for, not in that of their sizes.
    options["scales"] = (1.1, 1.0)
    fallen = extract(APPLY, split, method="concat", **options)
    np.testing.assert_allclose(
        fallen, np.concatenate([large, small], axis=1) / np.sqrt(2), atol=1e-6
    )


def test_flip_averages_the_mirror_image():
    split = make_split()
    mirrored = ReidSplit(
        np.asarray(split.images)[:, :, ::-1], split.names, split.identities
    )
    plain, mirror = one_by_one(split, SIZE), one_by_one(mirrored, SIZE)
    flipped = describe(APPLY, split, size=SIZE, batch_size=5, flip=True, **QUIET)
    np.testing.assert_allclose(flipped.features, unit(plain + mirror), atol=2e-3)
    both = [
        describe(APPLY, s, size=SIZE, batch_size=5, flip=True, **QUIET).features
        for s in (split, mirrored)
    ]
    np.testing.assert_allclose(both[0], both[1], atol=2e-3)
    assert np.abs(plain - mirror).max() > 0.05


def test_faults_name_the_image_or_the_option():
    split = make_split()
    sick = Partial(lambda w, x: project(w, x) * jnp.nan, jnp.asarray(WEIGHTS))
    with pytest.raises(ValueError, match=r"descriptor of '0/0\.png' holds NaN"):
        describe(sick, split, size=SIZE, batch_size=5, **QUIET)
    dead = Partial(project, jnp.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"'0/0.png' is all zero \(5 such images\)"):
        describe(dead, split, size=SIZE, batch_size=5, **QUIET)
    with pytest.raises(ValueError, match=r"apply: expected descriptors \[B, D\]"):
        describe(lambda x: x, split, size=SIZE, batch_size=5, **QUIET)
    with pytest.raises(ValueError, match="split: holds no images"):
        describe(APPLY, split.take([]), size=SIZE, **QUIET)
    with pytest.raises(ValueError, match="scales: expected at least one"):
        extract(APPLY, split, image_size=SIZE, scales=(), **QUIET)
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        describe(APPLY, split, size=SIZE, batch_size=0, **QUIET)


def test_progress_names_the_rate(capsys):
    describe(APPLY, make_split(), size=SIZE, batch_size=5, devices=jax.devices()[:1])
    assert "5/5" in capsys.readouterr().out


def make_data(source: str = "v1") -> ReidData:
    query, gallery = make_split(2, seed=1), make_split(5)
    return ReidData("set", query, query, gallery, Protocol("set"), source)


def describe_cached(folder, said, *, data=None, fingerprint="w1", **options):
    return describe_data(
        APPLY,
        data or make_data(),
        batch_size=5,
        cache=Cache(folder, say=said.append),
        fingerprint=fingerprint,
        progress=False,
        **{"size": SIZE, **options},
    )


def test_cache_is_used_and_says_so(tmp_path):
    said = []
    fresh, seconds, reused = describe_cached(tmp_path, said)
    assert not reused and not said
    again, kept_seconds, reused = describe_cached(tmp_path, said)
    assert reused and kept_seconds == seconds
    assert [line.split(" from ")[0] for line in said] == [
        "reusing 2 descriptors",
        "reusing 5 descriptors",
    ]
    np.testing.assert_array_equal(again.gallery_features, fresh.gallery_features)
    assert again.gallery_names == make_data().gallery.names


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "w2"},
        {"size": 9},
        {"flip": True},
        {"data": make_data("v2")},
    ],
)
def test_cache_is_never_stale(tmp_path, change):
    said = []
    describe_cached(tmp_path, said)
    assert not describe_cached(tmp_path, said, **change)[2]
    assert not said


def test_changed_code_makes_the_cache_old(tmp_path, monkeypatch):
    said = []
    describe_cached(tmp_path, said)
    monkeypatch.setattr(_extraction, "code_version", lambda: "another")
    assert not describe_cached(tmp_path, said)[2]


def test_a_replaced_picture_is_described_again(tmp_path):
    """Of equal size, its times restored: nothing but the content tells it."""
    pixels = np.full((10, 12, 3), 90, np.uint8)
    for name in ("0.bmp", "1.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    table = tmp_path / "cars.csv"
    table.write_text("path,split,identity\n0.bmp,query,a\n1.bmp,gallery,a\n")

    said: list[str] = []
    before = describe_cached(
        tmp_path / "cache", said, data=load("manifest", root=table)
    )
    again = describe_cached(tmp_path / "cache", said, data=load("manifest", root=table))
    assert again[2] and len(said) == 2

    picture = tmp_path / "1.bmp"
    status = picture.stat()
    pixels[:, :6] = (250, 10, 80)
    Image.fromarray(pixels).save(picture)
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert picture.stat().st_size == status.st_size
    after = describe_cached(tmp_path / "cache", said, data=load("manifest", root=table))
    assert not after[2] and len(said) == 2
    moved = after[0].gallery_features - before[0].gallery_features
    assert np.abs(moved).max() > 0.05
