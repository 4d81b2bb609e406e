import numpy as np
import pytest

from dex_jax.data import (
    Protocol,
    ReidData,
    ReidSplit,
    add_synthetic,
    class_labels,
    hold_out,
    mix,
)
from tests.data.fake_sets import empty_split


def _split(identities, cameras, domain="real", prefix=""):
    size = len(identities)
    return ReidSplit(
        np.zeros((size, 1, 1, 3), np.uint8),
        tuple(f"{prefix}{i}.png" for i in range(size)),
        np.array(identities),
        np.array(cameras),
        np.array(identities) * 100 + np.array(cameras),
        np.full(size, domain),
    )


def _data(train, **protocol):
    empty = empty_split()
    return ReidData("toy", train, empty, empty, Protocol("toy", **protocol), "v1")


@pytest.fixture
def data():
    """Ten identities, three cameras, two images each."""
    grid = np.array([(i, c) for i in range(10, 20) for c in (1, 2, 3) for _ in "ab"])
    return _data(_split(grid[:, 0], grid[:, 1]), top=100)


def test_synthetic_labels_take_no_word_of_real_ones():
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    train = ReidSplit(pixels, ("a", "b"), np.array([0, 1]), np.array([0, 0]))
    nothing = train.take([])
    data = ReidData(
        "set",
        train,
        nothing,
        nothing,
        Protocol("set"),
        "v1",
        identity_names=("v02", "v17", "v90"),
        camera_names=("c1",),
    )
    sim = ReidSplit(
        pixels,
        ("x", "y"),
        np.array([0, 2]),
        np.array([5, 5]),
        domains=np.array(["sim"] * 2),
    )
    more = add_synthetic(data, sim)
    assert more.words == data.words
    assert more.train.identities.tolist() == [0, 1, 3, 5]
    assert more.train.cameras.tolist() == [0, 0, 6, 6]


def test_one_query_for_each_identity_and_camera(data):
    held = hold_out(data, identities=4, seed=1)
    assert len(held.query) == 12
    assert len(held.gallery) == 12
    pairs = set(zip(held.query.identities, held.query.cameras, strict=True))
    assert len(pairs) == 12
    assert set(held.gallery.identities) == set(held.query.identities)
    names = held.train.names + held.query.names + held.gallery.names
    assert sorted(names) == sorted(data.train.names)
    assert not set(held.train.identities) & set(held.query.identities)
    assert class_labels(held.train)[1] == 6


def test_the_seed_decides(data):
    first = hold_out(data, identities=4, seed=1)
    again = hold_out(data, identities=4, seed=1)
    other = hold_out(data, identities=4, seed=2)
    assert first.query.names == again.query.names
    assert first.source == again.source
    assert first.query.names != other.query.names
    assert first.source != other.source


def test_the_validation_protocol_says_so(data):
    held = hold_out(data, identities=4)
    assert held.protocol.describe() == (
        "toy validation on 4 held-back identities: same-camera images kept, "
        "mAP over all positives"
    )
    removing = hold_out(data, identities=4, remove_same_camera=True)
    assert removing.protocol.remove_same_camera


def test_an_identity_keeps_an_image_in_the_gallery():
    # One image for each camera: the last one stays, and a lone image is not asked.
    train = _split([1, 1, 2, 2, 3], [1, 2, 1, 2, 1])
    held = hold_out(_data(train), identities=2, seed=0)
    assert len(held.query) == len(set(held.gallery.identities) - {3})
    assert set(held.query.identities) <= set(held.gallery.identities)


def test_scene_disjoint():
    # Cameras 1, 2 see identities 1-3; cameras 5, 6 see 4-9.
    identities = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    cameras = [1, 2, 2, 1, 2, 2, 5, 6, 5, 6, 6, 6, 5, 5, 6, 6, 5, 6]
    data = _data(_split(identities, cameras))
    held = hold_out(data, identities=4, by="scene")
    assert set(held.gallery.identities) == {1, 2, 3}
    assert not set(held.train.cameras) & set(held.gallery.cameras)
    assert set(hold_out(data, identities=5, by="scene").train.identities) == {1, 2, 3}
    connected = _data(_split([1, 1, 2, 2], [1, 2, 2, 1]))
    with pytest.raises(ValueError, match="by: 'scene' needs identities that share no"):
        hold_out(connected, identities=1, by="scene")


@pytest.fixture
def mixed(data):
    sim = _split([10, 10, 11, 12, 12, 13], [1, 1, 2, 1, 3, 3], "sim", "s")
    return add_synthetic(data, sim)


def test_synthetic_labels_never_meet_real_ones(data, mixed):
    assert len(mixed.train) == len(data.train) + 6
    real = mixed.train.domains == "real"
    for labels in (mixed.train.identities, mixed.train.cameras, mixed.train.tracklets):
        assert not set(labels[real]) & set(labels[~real])
    assert class_labels(mixed.train)[1] == 14
    assert mixed.train.names[-1] == "sim/s5.png"


def test_the_three_mixtures(data, mixed):
    assert mix(mixed, synthetic="real").train.names == data.train.names
    assert len(mix(mixed, synthetic="full").train) == len(mixed.train)
    two = mix(mixed, synthetic="balanced", synthetic_identities=2, seed=5)
    assert class_labels(two.train)[1] == 12
    again = mix(mixed, synthetic="balanced", synthetic_identities=2, seed=5)
    assert again.train.names == two.train.names
    seeds = {
        mix(mixed, synthetic_identities=2, seed=seed).train.names for seed in range(6)
    }
    assert len(seeds) > 1


def test_synthetic_images_are_never_held_out(mixed):
    held = hold_out(mixed, identities=9)
    assert set(held.query.domains) == {"real"}
    assert np.sum(held.train.domains == "sim") == 6
    with pytest.raises(ValueError, match=r"identities: 10 to hold back, .* on 10 real"):
        hold_out(mixed, identities=10)


def test_bad_mixtures(data, mixed):
    with pytest.raises(ValueError, match="synthetic: expected one of 'real'"):
        mix(data, synthetic="half")
    with pytest.raises(ValueError, match=r"'balanced' needs 193 .* toy has 4"):
        mix(mixed)
    with pytest.raises(ValueError, match=r"'full' needs 1 .* toy has 0"):
        mix(data, synthetic="full")
    with pytest.raises(ValueError, match="split: synthetic images must name a domain"):
        add_synthetic(data, data.train)


def test_nothing_to_ask():
    lonely = _data(_split([1, 2, 3], [1, 1, 1]))
    with pytest.raises(ValueError, match="none of the 2 held-back identities of toy"):
        hold_out(lonely, identities=2)


def test_class_labels_need_identities(data):
    with pytest.raises(ValueError, match="split: is empty"):
        class_labels(empty_split())
    unlabelled = ReidSplit(
        np.zeros((2, 1, 1, 3), np.uint8), ("a", "b"), np.array([1, -1])
    )
    with pytest.raises(ValueError, match=r"1 image\(s\) have no identity, first 'b'"):
        class_labels(unlabelled)
