"""The special forms against XLA's convolution, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.models import _convolution
from dex_jax.models._convolution import (
    convolve,
    depthwise,
    explicit_pads,
    mixing,
    pointwise,
)


def _with_gradients(run, x, kernel, weights):
    """The result, and the gradients of its product with `weights`."""

    @jax.jit
    def all_of_it(x, kernel):
        y, pull = jax.vjp(run, x, kernel)
        return y, *pull(weights.astype(y.dtype))

    return [np.asarray(each, np.float64) for each in all_of_it(x, kernel)]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "image"),
    [
        (3, 1, "SAME", (7, 6)),
        (3, 2, "SAME", (8, 7)),
        (5, 2, "SAME", (6, 9)),
        (5, 1, "SAME", (3, 3)),
        (3, 2, 1, (6, 5)),
        # The last row and column are seen by no window.
        (3, 2, 0, (6, 8)),
    ],
)
def test_depthwise(rng, size: int, stride: int, padding, image):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, *image, 3)))
        kernel = jnp.asarray(rng.normal(size=(size, size, 1, 3)))
        pads = explicit_pads(x, kernel, stride, padding)
        expected = functools.partial(convolve, stride=stride, pads=pads, groups=3)
        weights = jnp.asarray(rng.normal(size=expected(x, kernel).shape))
        ours = functools.partial(depthwise, stride=stride, pads=pads)
        for got, want in zip(
            _with_gradients(lambda x, k: ours(x, k), x, kernel, weights),
            _with_gradients(expected, x, kernel, weights),
            strict=True,
        ):
            np.testing.assert_allclose(got, want, atol=1e-12)


# Bands of one row; of a few rows, as many as the patches or a kernel of many outputs
# allow; of a whole image.
@pytest.mark.parametrize(
    ("numbers", "outputs"), [(1, 4), (3000, 4), (1, 90), (2**18, 4)]
)
@pytest.mark.parametrize(
    ("size", "stride", "padding", "image"),
    [
        (3, 1, 1, (20, 17)),
        (3, 2, 1, (41, 36)),
        (7, 2, 3, (38, 35)),
        (3, 2, "SAME", (40, 39)),
        # The last row and column are seen by no window.
        (3, 2, 0, (42, 38)),
        (3, 1, 1, (5, 4)),  # left to XLA
    ],
)
def test_mixing(
    rng, monkeypatch, size: int, stride: int, padding, image, numbers, outputs
):
    monkeypatch.setattr(_convolution, "_PATCHES", numbers)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, *image, 3)))
        kernel = jnp.asarray(rng.normal(size=(size, size, 3, outputs)))
        pads = explicit_pads(x, kernel, stride, padding)
        expected = functools.partial(convolve, stride=stride, pads=pads, groups=1)
        weights = jnp.asarray(rng.normal(size=expected(x, kernel).shape))
        assert (weights[0, ..., 0].size >= 300) == (image != (5, 4))
        for got, want in zip(
            _with_gradients(
                lambda x, k: mixing(x, k, stride, pads), x, kernel, weights
            ),
            _with_gradients(expected, x, kernel, weights),
            strict=True,
        ):
            np.testing.assert_allclose(got, want, atol=1e-11)


@pytest.mark.parametrize("image", [259, 288, 317, 346])
def test_same_padding_is_tensorflows_at_every_scale(image: int):
    # All maps that an image of this size becomes on its way.
    for size in {-(-image // 2**halvings) for halvings in range(6)}:
        for kernel in (3, 5):
            for stride in (1, 2):
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                x, k = jnp.zeros((1, size, size, 1)), jnp.zeros((kernel, kernel, 1, 1))
                ends = (total // 2, total - total // 2)
                assert explicit_pads(x, k, stride, "SAME") == (ends, ends)


@pytest.mark.parametrize(("narrow", "wide"), [(2, 5), (5, 2), (3, 3)])
def test_pointwise(rng, narrow: int, wide: int):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, 3, 4, narrow)))
        kernel = jnp.asarray(rng.normal(size=(narrow, wide)))
        weights = jnp.asarray(rng.normal(size=(2, 3, 4, wide)))
        y, of_x, of_kernel = _with_gradients(pointwise, x, kernel, weights)
    np.testing.assert_allclose(y, np.einsum("bhwc,cd->bhwd", x, kernel), atol=1e-12)
    by_hand = np.einsum("bhwd,cd->bhwc", weights, kernel)
    np.testing.assert_allclose(of_x, by_hand, atol=1e-12)
    by_hand = np.einsum("bhwc,bhwd->cd", x, weights)
    np.testing.assert_allclose(of_kernel, by_hand, atol=1e-12)


def test_bfloat16_sums_are_taken_in_float32(rng):
    # A thousand ones: bfloat16 alone stops counting at 256.
    x = jnp.ones((4, 16, 16, 2), jnp.bfloat16)
    run = functools.partial(depthwise, stride=1, pads=((1, 1), (1, 1)))
    _, of_x, of_kernel = _with_gradients(
        lambda x, k: run(x, k), x, jnp.ones((3, 3, 1, 2), jnp.bfloat16), x
    )
    assert (of_kernel[1, 1] == 4 * 16 * 16).all()
    assert (of_x[:, 1:-1, 1:-1] == 9).all()


def test_bfloat16_patches_are_summed_in_float32():
    x = jnp.ones((4, 20, 20, 2), jnp.bfloat16)
    run = functools.partial(mixing, stride=1, pads=((1, 1), (1, 1)))
    kernel = jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    _, _, of_kernel = _with_gradients(lambda x, k: run(x, k), x, kernel, x)
    assert (of_kernel[1, 1] == 4 * 20 * 20).all()
