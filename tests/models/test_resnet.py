import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import models
from dex_jax.models._resnet import max_pool
from tests.models import golden_networks

# Golden model, our name, cases: together they cover every layer, both modes, both
# strides and an image of another size without compiling each combination.
CASES = (
    ("resnet50", "resnet50", "eval_2x3x96x96_ls2"),
    ("resnet50_cbam", "resnet50_cbam", "eval_2x3x96x96_ls1"),
    ("resnet50_ibn_a", "resnet50_ibn_a", "eval_1x3x128x128_ls1"),
    ("resnet50_ibn_a_cbam", "resnet50_ibn_a_cbam", "train_2x3x96x96_ls1"),
    ("se_resnext50_32x4d", "se_resnext50", "eval_2x3x96x96_ls1"),
    ("se_resnext50_32x4d", "se_resnext50", "train_2x3x96x96_ls1"),
)


@pytest.mark.parametrize(("model", "name", "case"), CASES)
def test_golden_in_float64(golden, model: str, name: str, case: str):
    golden_networks.check(golden / "backbones", model, name, case, wide=True)


def test_golden_in_float32(golden):
    errors = golden_networks.check(
        golden / "backbones",
        "resnet50_ibn_a",
        "resnet50_ibn_a",
        "train_2x3x96x96_ls1",
        wide=False,
    )
    assert errors.feature < 5e-4
    assert errors.statistics < 3e-5


def test_padded_pool_is_an_option_for_checkpoints_that_want_it(golden):
    golden_networks.check(
        golden / "backbones",
        "variant_timm_seresnext50_32x4d",
        "se_resnext50",
        "eval_2x3x96x96_ls1",
        wide=True,
        pool="padded",
    )


@pytest.mark.parametrize(("size", "padded", "ceil"), [(48, 24, 24), (49, 25, 24)])
def test_pool_sizes(size: int, padded: int, ceil: int):
    x = jnp.zeros((1, size, size, 1))
    assert max_pool(x, ceil=False).shape[1] == padded
    assert max_pool(x, ceil=True).shape[1] == ceil


def test_pool_windows_by_hand():
    x = jnp.arange(4.0).reshape(1, 4, 1, 1) * jnp.ones((1, 1, 4, 1))
    # Padded windows start at -1 and 1, unpadded ones at 0 and 2.
    np.testing.assert_array_equal(max_pool(x, ceil=False)[0, :, 0, 0], [1, 3])
    np.testing.assert_array_equal(max_pool(x, ceil=True)[0, :, 0, 0], [2, 3])


def test_cbam_after_the_last_stage_alone():
    everywhere, last, plain = (
        models.backbone("resnet_slim", width=4, cbam=where, rngs=None)
        for where in ("blocks", "last", "none")
    )
    assert last.order == (*plain.order, "cbam")
    assert everywhere.order == plain.order
    features = jax.eval_shape(
        lambda: models.backbone("resnet_slim", width=4, cbam="last")(
            jnp.zeros((1, 32, 32, 3))
        )
    )
    assert features.shape == (1, 2, 2, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet51"}, "name: expected one of .*'resnet50'.*, got 'resnet51'"),
        ({"last_stride": 3}, "last_stride: expected 1 or 2, got 3"),
        ({"cbam": "first"}, "cbam: expected one of 'blocks', 'last', 'none'"),
        ({"pool": "SAME"}, "pool: expected one of"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"blocks": (1, 1)}, r"blocks: expected four stages, got \(1, 1\)"),
        ({"deph": 3}, "deph: not an option of 'resnet_slim', which takes blocks, cbam"),
        ({"rngs": -1}, "rngs: expected nnx.Rngs or a seed >= 0, got -1"),
    ],
)
def test_bad_options_are_named(options, message: str):
    with pytest.raises(ValueError, match=message):
        models.backbone(**{"name": "resnet_slim", **options})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (jnp.zeros((1, 3, 32, 32)), r"images: expected \[B, H, W, 3\]"),
        (jnp.zeros((32, 32, 3)), r"images: expected \[B, H, W, 3\]"),
        (jnp.zeros((1, 32, 32, 3), jnp.uint8), "images: .* got dtype uint8"),
    ],
)
def test_bad_images_are_refused(images, message: str):
    network = models.backbone("resnet_slim", width=1)
    with pytest.raises(ValueError, match=message):
        network(images)
