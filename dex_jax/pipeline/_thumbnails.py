"""Small pictures for pages."""

import io

import numpy as np


def thumbnail(image: np.ndarray, *, size: int, quality: int = 70) -> bytes:
    """Encodes an image as WebP, scaled down to fit a square.

    Args:
        image: uint8 `[H, W, 3]`.
        size: the longer side in pixels at most; a smaller image keeps its size.
        quality: of the encoder, 1 to 100.

    Returns:
        The bytes of a WebP file.

    Raises:
        ValueError: not an image of that kind.

    Example:
        >>> thumbnail(np.zeros((40, 80, 3), np.uint8), size=20)[8:12]
        b'WEBP'
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}"
        )
    from PIL import Image  # loaded on use, as in _images.py

    picture = Image.fromarray(image)
    picture.thumbnail((size, size), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()
