import os
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import decode
from tests.data import fake_sets

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["word", "path"])
def test_decode_returns_the_pixels_as_they_are(kind, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = decode(kind(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, PIXELS)


def test_decode_makes_three_channels_of_any_image(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        decode(tmp_path / "grey.png"), PIXELS[..., :1].repeat(3, axis=2)
    )
    alpha = np.full((2, 3, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(decode(tmp_path / "rgba.png"), PIXELS)
    palette = Image.fromarray(np.array([[1, 0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "palette.png")
    assert decode(tmp_path / "palette.png").tolist() == [
        [[40, 50, 60], [10, 20, 30], [40, 50, 60]]
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"a\.jpg: image file is empty"),
        (fake_sets.PIXELS[:300], r"a\.jpg: image file cannot be decoded"),
        (b"words, no image", r"a\.jpg: image file cannot be decoded"),
    ],
    ids=["empty", "cut short", "no image"],
)
def test_decode_names_a_file_that_is_no_image(content, match, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        decode(tmp_path / "a.jpg")


def test_decode_refuses_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.jpg: no such image file"):
        decode(os.fspath(tmp_path / "b.jpg"))
    with pytest.raises(ValueError, match="expected an image file, got a folder"):
        decode(tmp_path)
    number: Any = 7
    with pytest.raises(ValueError, match=r"path: expected that of .* file, got 7"):
        decode(number)
