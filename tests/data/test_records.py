import numpy as np
import pytest

from dex_jax.data import Protocol, ReidData, ReidSplit
from dex_jax.data._records import concatenate
from tests.data.fake_sets import empty_split


def _split(identities, **labels):
    size = len(identities)
    pixels = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)
    names = tuple(f"{i}.png" for i in range(size))
    arrays = {k: np.array(v) for k, v in labels.items()}
    return ReidSplit(pixels, names, np.array(identities, np.int64), **arrays)


def test_what_is_not_given_is_unknown():
    split = _split([4, 4, 9])
    assert split.cameras.tolist() == [-1, -1, -1]
    assert split.tracklets.tolist() == [-1, -1, -1]
    assert split.domains.tolist() == ["real"] * 3
    assert split.identities.dtype == np.int64


def test_take_keeps_images_and_labels_together():
    split = _split([4, 4, 9, 2], cameras=[1, 2, 3, 4], tracklets=[7, -1, 5, -1])
    some = split.take([2, 0]).take(np.array([True, False]))
    assert some.names == ("2.png",)
    assert some.images[0][0, 0, 0] == 2
    assert (some.identities[0], some.cameras[0], some.tracklets[0]) == (9, 3, 5)
    assert len(split.take([])) == 0


def test_concatenation():
    a, b = _split([1, 2]), _split([3])
    b = ReidSplit(b.images, ("other.png",), b.identities)
    both = concatenate([a, empty_split(), b])
    assert [int(both.images[i][0, 0, 0]) for i in range(3)] == [0, 1, 0]
    assert both.identities.tolist() == [1, 2, 3]
    with pytest.raises(IndexError):
        both.images[3]
    with pytest.raises(ValueError, match=r"names: '0\.png' occurs twice"):
        concatenate([a, a])


@pytest.mark.parametrize(
    ("identities", "labels", "message"),
    [
        ([1, -2], {}, "identities: expected -1 or more, got -2"),
        ([1, 2], {"cameras": [1]}, r"cameras: expected shape \(2,\), got \(1,\)"),
        ([1, 2], {"cameras": [0.5, 1]}, "cameras: expected integers"),
        ([1, 2], {"tracklets": [3, 3]}, "tracklet 3 mixes identities 1 .* and 2"),
        (
            [1, 1],
            {"tracklets": [3, 3], "cameras": [5, 6]},
            r"tracklet 3 mixes cameras 5 \('0.png'\) and 6 \('1.png'\)",
        ),
        ([1, 2], {"domains": ["real"]}, "domains: expected 2 words"),
    ],
)
def test_inconsistent_labels(identities, labels, message):
    with pytest.raises(ValueError, match=message):
        _split(identities, **labels)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="names: got 1 for 2 images"):
        ReidSplit(np.zeros((2, 1, 1, 3), np.uint8), ("a",), np.array([1]))


@pytest.mark.parametrize("indices", [[3], [-1], [0.5], [0, 0]])
def test_take_refuses_bad_positions(indices):
    with pytest.raises(ValueError, match=r"indices: |occurs twice"):
        _split([1, 2]).take(indices)


def test_take_refuses_a_mask_of_another_length():
    with pytest.raises(ValueError, match=r"indices: mask \(3,\) for 2 images"):
        _split([1, 2]).take(np.ones(3, np.bool_))


def test_a_protocol_says_what_it_does():
    protocol = Protocol(
        "X", True, top=100, ap_denominator="min", draws=10, gallery_unit="tracklet"
    )
    assert protocol.describe() == (
        "X: same-camera images removed, mAP@100 over min(positives, 100), the gallery "
        "is ranked by tracklet, mean of 10 random galleries"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top: expected at least 1"),
        ({"ap_denominator": "all"}, "ap_denominator: expected one of 'positives'"),
        ({"gallery_unit": "box"}, "gallery_unit: expected one of"),
    ],
)
def test_bad_protocols(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol("X", **options)


def test_queries_need_a_gallery():
    split = _split([1, 2])
    with pytest.raises(ValueError, match="gallery: is empty while 2 queries ask it"):
        ReidData("x", split, split, empty_split(), Protocol("x"), "v1")
    with pytest.raises(ValueError, match="name and source"):
        ReidData("x", split, split, split, Protocol("x"), "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 10**9}, "draws: expected at most 1000, got 1000000000"),
        ({"draws": 0}, "draws: expected at least 1"),
        ({"draw_seed": 10**30}, "draw_seed: expected at most"),
        ({"top": 10**12}, "top: expected at most"),
    ],
)
def test_a_protocol_has_bounds(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol("any", **options)


def test_words_of_labels():
    train, none = _split([0, 1]), empty_split()
    data = ReidData("set", train, none, none, Protocol("set"), "v1")
    assert data.words == {}
    named = ReidData(
        "set",
        train,
        none,
        none,
        Protocol("set"),
        "v1",
        identity_names=("bus_0002", "plate 10"),
        camera_names=("1",),
    )
    assert named.words == {"identities": ["bus_0002", "plate 10"], "cameras": ["1"]}
