"""A picture of a training batch, as the network sees it."""

import jax
import numpy as np

from dex_jax._checks import check_count
from dex_jax.pipeline._augment import IMAGENET_MEAN, IMAGENET_STD


def preview(images: jax.Array | np.ndarray, *, columns: int) -> np.ndarray:
    """Lays the images of a batch side by side.

    Args:
        images: uint8 `[B, H, W, 3]`, or float32 as `augment` and `normalize` return.
        columns: images in a row; with K of an identity-balanced batch a row is one
            identity.

    Returns:
        uint8 `[rows * H, columns * W, 3]`; places without image are black.

    Raises:
        ValueError: not a batch of images.

    Example:
        >>> preview(np.zeros((6, 8, 8, 3), np.uint8), columns=4).shape
        (16, 32, 3)
    """
    check_count(columns, "columns")
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(f"images: expected [B, H, W, 3], got shape {pixels.shape}")
    if pixels.dtype != np.uint8:
        pixels = (pixels * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)) * 255
        pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    B, H, W, _ = pixels.shape
    rows = -(-B // columns)
    sheet = np.zeros((rows * columns, H, W, 3), np.uint8)
    sheet[:B] = pixels
    grid = sheet.reshape(rows, columns, H, W, 3).swapaxes(1, 2)
    return grid.reshape(rows * H, columns * W, 3)
