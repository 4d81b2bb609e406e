"""Augmentation inside the jitted training step (section 4.2)."""

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Of random erasing: the box's share of the image's area, and its height / width.
_AREA, _ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)
# A box is drawn anew until it fits; on a square image one draw in 22 does not, so that
# ten leave nothing to chance (below 1e-13).
_TRIES = 10


def normalize(images: jax.Array | np.ndarray) -> jax.Array:
    """Scales pixels to the mean and deviation of ImageNet.

    Args:
        images: uint8 `[B, H, W, 3]`.

    Returns:
        float32 `[B, H, W, 3]`.

    Raises:
        ValueError: another shape or dtype.

    Example:
        >>> white = normalize(np.full((1, 1, 1, 3), 255, np.uint8))
        >>> [round(float(channel), 2) for channel in white[0, 0, 0]]
        [2.25, 2.43, 2.64]
    """
    _check_images(images)
    return _standardize(jnp.asarray(images, jnp.float32) / 255)


def augment(
    key: jax.Array,
    images: jax.Array | np.ndarray,
    *,
    flip: float = 0.5,
    contrast: float = 0.1,
    brightness: float = 0.1,
    erase: float = 0.5,
) -> jax.Array:
    """Flips, changes contrast and brightness, normalises and erases a random box.

    The paper's augmentation (section 4.2) with the ranges of its authors' code: every
    image is mirrored with probability `flip`; contrast is scaled about the image's
    mean grey level by a factor uniform in `1 +- contrast`, brightness by one uniform
    in `1 +- brightness`. Random erasing follows Zhong et al.: with probability
    `erase` a box of 0.02 to 0.4 of the area and of height / width from 0.3 to 1 / 0.3,
    both uniform, is laid uniformly inside the image and filled with the mean pixel (0
    after normalisation). Uniform aspect prefers tall boxes, as in their code.

    Meant to be called inside the caller's `jit`; options may be traced. The result
    depends on the key alone: fold the step into it.

    Args:
        key: a random key.
        images: uint8 `[B, H, W, 3]`.
        flip: probability in [0, 1].
        contrast: half width in [0, 1]; 0 leaves the contrast alone.
        brightness: half width in [0, 1]; 0 leaves the brightness alone.
        erase: probability in [0, 1].

    Returns:
        float32 `[B, H, W, 3]`, normalised.

    Raises:
        ValueError: another shape or dtype, or an option outside its range (options
            are checked only where they are plain numbers).

    Example:
        >>> images = np.zeros((2, 8, 8, 3), np.uint8)
        >>> jax.jit(augment)(jax.random.key(0), images).shape
        (2, 8, 8, 3)
    """
    _check_images(images)
    shares = {"flip": flip, "contrast": contrast, "brightness": brightness}
    for name, value in (shares | {"erase": erase}).items():
        _check_share(value, name)
    B, H, W, _ = images.shape
    keys = jax.random.split(key, 4)
    x = jnp.asarray(images, jnp.float32) / 255
    mirrored = jax.random.uniform(keys[0], (B, 1, 1, 1), jnp.float32) < flip
    x = jnp.where(mirrored, x[:, :, ::-1], x)
    x = _change_light(keys[1], keys[2], x, contrast, brightness)
    boxes = jax.vmap(lambda k: _box(k, (H, W), erase))
    hole = boxes(jax.random.split(keys[3], B))  # [B, H, W]
    return jnp.where(hole[..., None], 0.0, _standardize(x))


def _change_light(
    contrast_key: jax.Array,
    brightness_key: jax.Array,
    x: jax.Array,
    contrast: float,
    brightness: float,
) -> jax.Array:
    shape = (x.shape[0], 1, 1, 1)
    grey = jnp.array([0.299, 0.587, 0.114], jnp.float32)
    mean = jnp.mean(x @ grey, axis=(1, 2)).reshape(shape)
    factor = 1 + contrast * jax.random.uniform(
        contrast_key, shape, jnp.float32, minval=-1.0, maxval=1.0
    )
    x = jnp.clip(mean + factor * (x - mean), 0.0, 1.0)
    factor = 1 + brightness * jax.random.uniform(
        brightness_key, shape, jnp.float32, minval=-1.0, maxval=1.0
    )
    return jnp.clip(factor * x, 0.0, 1.0)


def _box(key: jax.Array, shape: tuple[int, int], probability: float) -> jax.Array:
    H, W = shape
    u = jax.random.uniform(key, (_TRIES, 5), jnp.float32)
    pixels = H * W * (_AREA[0] + u[:, 0] * (_AREA[1] - _AREA[0]))
    ratio = _ASPECT[0] + u[:, 1] * (_ASPECT[1] - _ASPECT[0])
    heights = jnp.round(jnp.sqrt(pixels * ratio))
    widths = jnp.round(jnp.sqrt(pixels / ratio))
    fits = (heights < H) & (widths < W)
    first = jnp.argmax(fits)
    height, width = heights[first], widths[first]
    top = jnp.floor(u[first, 2] * (H - height + 1))
    left = jnp.floor(u[first, 3] * (W - width + 1))
    row = jnp.arange(H, dtype=jnp.float32)[:, None]
    column = jnp.arange(W, dtype=jnp.float32)[None, :]
    inside_rows = (row >= top) & (row < top + height)  # [H, 1]
    inside_columns = (column >= left) & (column < left + width)  # [1, W]
    # The last number of the first try decides, so that it is independent of the box.
    erased = (u[0, 4] < probability) & fits[first]
    return inside_rows & inside_columns & erased  # [H, W]


def _standardize(x: jax.Array) -> jax.Array:
    mean = jnp.array(IMAGENET_MEAN, jnp.float32).reshape(1, 1, 1, 3)
    std = jnp.array(IMAGENET_STD, jnp.float32).reshape(1, 1, 1, 3)
    return (x - mean) / std


def _check_images(images: jax.Array | np.ndarray) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise ValueError(
            "images: expected uint8 [B, H, W, 3], got "
            f"{images.dtype} of shape {images.shape}"
        )


def _check_share(value: object, name: str) -> None:
    if not isinstance(value, (int, float)):
        return  # traced by the caller
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected at least 0 and at most 1, got {value}")
