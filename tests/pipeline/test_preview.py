"""Sheets of images, as the network sees them."""

import numpy as np
import pytest

from dex_jax.pipeline import normalize, preview


def test_a_preview_lays_images_in_rows():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones(3, np.uint8)
    sheet = preview(images, columns=4)
    assert sheet[..., 0].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    np.testing.assert_array_equal(preview(normalize(images), columns=4), sheet)
    with pytest.raises(ValueError, match=r"images: expected \[B, H, W, 3\]"):
        preview(images[0], columns=4)
