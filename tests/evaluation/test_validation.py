"""The figures that a training is watched by, against arithmetic by hand."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from dex_jax.data import Protocol, ReidData, ReidSplit
from dex_jax.evaluation import validate


def colour(images: jax.Array) -> jax.Array:
    """A stand-in network: red, green and blue of the middle of an image."""
    return images[:, 4, 4] + 3.0  # normalised values are above -2.2


def make_data(**rule) -> ReidData:
    """One query, three gallery images; the nearest one is of another vehicle."""

    def split(colours: list, identities: list[int], cameras: list[int]) -> ReidSplit:
        pixels = np.broadcast_to(
            np.array(colours, np.uint8)[:, None, None], (len(colours), 8, 8, 3)
        )
        names = tuple(f"{c}" for c in colours)
        return ReidSplit(pixels, names, np.array(identities), np.array(cameras))

    query = split([(255, 0, 0)], [1], [0])
    # Nearest first: the query's own camera, another vehicle, the same vehicle.
    colours = [(255, 10, 0), (255, 90, 0), (255, 200, 0)]
    gallery = split(colours, [1, 2, 1], [0, 1, 1])
    return ReidData("set", query, query, gallery, Protocol("rule", **rule), "v1")


def test_figures_follow_the_protocol():
    sizes = {"image_size": 8, "batch_size": 2}
    kept = validate(Partial(colour), make_data(), **sizes)
    # Hits at ranks 1 and 3: (1/1 + 2/3) / 2.
    assert kept["mean_ap"] == pytest.approx(5 / 6)
    assert (kept["cmc_1"], kept["cmc_5"]) == (1.0, 1.0)
    assert kept["mean_inp"] == pytest.approx(2 / 3)
    removed = validate(Partial(colour), make_data(remove_same_camera=True), **sizes)
    # The image of the query's camera is out: one hit at rank 2.
    assert removed["mean_ap"] == pytest.approx(1 / 2)
    assert (removed["cmc_1"], removed["cmc_5"]) == (0.0, 1.0)
    cut = validate(Partial(colour), make_data(top=1), **sizes)
    assert cut["mean_ap"] == pytest.approx(1 / 2)
    least = validate(Partial(colour), make_data(top=1, ap_denominator="min"), **sizes)
    assert least["mean_ap"] == pytest.approx(1.0)


def test_a_hit_at_rank_six_is_none_among_the_first_five():
    def split(greens: list[int], identities: list[int]) -> ReidSplit:
        pixels = np.zeros((len(greens), 8, 8, 3), np.uint8)
        pixels[..., 0] = 255
        pixels[..., 1] = np.array(greens)[:, None, None]
        names = tuple(map(str, greens))
        return ReidSplit(pixels, names, np.array(identities))

    query, gallery = split([0], [1]), split([10, 40, 80, 120, 160, 200], [2] * 5 + [1])
    data = ReidData("set", query, query, gallery, Protocol("rule"), "v1")
    found = validate(Partial(colour), data, image_size=8, batch_size=4)
    assert found["mean_ap"] == pytest.approx(1 / 6)
    assert (found["cmc_1"], found["cmc_5"]) == (0.0, 0.0)


def test_a_set_without_a_positive_is_an_error():
    data = make_data()
    strangers = replace(data.query, identities=np.array([9]))
    with pytest.raises(ValueError, match="no query can be scored"):
        validate(
            Partial(colour), replace(data, query=strangers), image_size=8, batch_size=2
        )
