import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax.pipeline import augment, normalize

SHAPE = (2000, 24, 24, 3)
PLAIN = {"flip": 0.0, "contrast": 0.0, "brightness": 0.0, "erase": 0.0}
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def run():
    """Augments 2,000 images with traced options: one compilation for all tests."""
    compiled = jax.jit(augment)

    def call(images, key=1, **options):
        return np.asarray(compiled(jax.random.key(key), images, **(PLAIN | options)))

    return call


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(40, 200, SHAPE, dtype=np.uint8)


def test_normalize():
    pixels = np.array([0, 128, 255], np.uint8).reshape(1, 1, 1, 3)
    expected = (np.array([0, 128, 255]) / 255 - MEAN) / STD
    np.testing.assert_allclose(normalize(pixels)[0, 0, 0], expected, rtol=1e-5)


def test_nothing_asked_is_normalisation(run, noise):
    np.testing.assert_allclose(run(noise), normalize(noise), atol=1e-5)


def test_half_of_the_images_are_mirrored(run, noise):
    out = run(noise, flip=0.5)
    plain = np.asarray(normalize(noise))
    kept = np.isclose(out, plain, atol=1e-4).all(axis=(1, 2, 3))
    mirrored = np.isclose(out, plain[:, :, ::-1], atol=1e-4).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    # Deviation of the share: sqrt(.25 / 2000) = .011.
    assert abs(mirrored.mean() - 0.5) < 0.05


def test_brightness_is_scaled_uniformly_within_a_tenth(run):
    images = np.full(SHAPE, 100, np.uint8)
    level = (run(images, brightness=0.1) * STD + MEAN)[:, 0, 0, 0] * 255 / 100
    assert level.min() >= 0.9 - 1e-4
    assert level.max() <= 1.1 + 1e-4
    # Uniform on [.9, 1.1]: mean 1, deviation .2 / sqrt(12) = .0577.
    assert abs(level.mean() - 1) < 0.006
    assert abs(level.std() - 0.0577) < 0.003


def test_contrast_is_scaled_about_the_grey_level(run):
    images = np.full(SHAPE, 80, np.uint8)
    images[:, ::2] = 120  # mean grey 100, so 100 + f * 20
    level = (run(images, contrast=0.1) * STD + MEAN) * 255
    factor = (level[:, 0, 0, 0] - 100) / 20
    np.testing.assert_allclose((level[:, 1, 0, 2] - 100) / -20, factor, atol=1e-3)
    assert abs(factor.mean() - 1) < 0.006
    assert abs(factor.std() - 0.0577) < 0.003


def test_erased_boxes_follow_the_stated_distribution(run, noise):
    hole = (run(noise, erase=1.0) == 0).all(axis=-1)  # mean pixels are 0
    rows, columns = hole.any(axis=2), hole.any(axis=1)
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    assert (hole.sum(axis=(1, 2)) == height * width).all()  # one full box each
    assert ((height > 0) & (height < 24) & (width < 24)).all()
    # The same draws in plain numpy, far more of them.
    expected = _boxes(np.random.default_rng(5), 40_000, 24)
    for mine, reference in zip((height, width), expected, strict=True):
        assert abs(mine.mean() - reference.mean()) < 4 * reference.std() / 2000**0.5
    taller = np.mean(expected[0] > expected[1])
    assert abs(np.mean(height > width) - taller) < 0.05
    assert taller > 0.7  # uniform aspect prefers tall boxes
    top = np.argmax(rows, axis=1) / np.maximum(24 - height, 1)
    assert abs(top.mean() - 0.5) < 0.03
    assert top.max() == 1
    assert top.min() == 0


def test_half_of_the_images_are_erased(run, noise):
    erased = (run(noise, erase=0.5) == 0).all(axis=-1).any(axis=(1, 2))
    assert abs(erased.mean() - 0.5) < 0.05


def test_the_key_alone_decides(run, noise):
    everything = {"flip": 0.5, "contrast": 0.1, "brightness": 0.1, "erase": 0.5}
    first = run(noise, key=7, **everything)
    np.testing.assert_array_equal(run(noise, key=7, **everything), first)
    assert (run(noise, key=8, **everything) != first).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip: expected at least 0 and at most 1, got 1.5"),
        ({"contrast": -0.1}, "contrast: expected at least 0"),
        ({"brightness": float("nan")}, "brightness: expected"),
        ({"erase": 2}, "erase: expected"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        augment(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8), **options)


@pytest.mark.parametrize(
    "images", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)]
)
def test_bad_images(images):
    with pytest.raises(ValueError, match="images: expected uint8"):
        augment(jax.random.key(0), images)
    with pytest.raises(ValueError, match="images: expected uint8"):
        normalize(jnp.asarray(images))


def _boxes(rng, draws, side):
    area = side * side * rng.uniform(0.02, 0.4, draws)
    ratio = rng.uniform(0.3, 1 / 0.3, draws)
    height, width = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = (height < side) & (width < side)
    return height[fits], width[fits]
