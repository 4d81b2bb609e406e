import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dex_jax import models
from dex_jax.models._efficientnet import InvertedResidual, scaled
from tests.models import golden_networks


@pytest.mark.parametrize(
    ("model", "case"),
    [
        ("efficientnet_b0", "train_2x3x96x96_ls1"),
        ("efficientnet_b3", "eval_1x3x128x128_ls1"),
    ],
)
def test_golden_in_float64(golden, model: str, case: str):
    golden_networks.check(golden / "backbones", model, model, case, wide=True)


def test_golden_in_float32(golden):
    errors = golden_networks.check(
        golden / "backbones",
        "efficientnet_b0",
        "efficientnet_b0",
        "eval_2x3x96x96_ls1",
        wide=False,
    )
    assert errors.feature < 2e-5


@pytest.mark.parametrize("size", ["b0", "b1", "b2", "b3"])
def test_every_parameter_of_the_reference_is_there(golden, size: str):
    model = f"efficientnet_{size}"
    description, _ = golden_networks.read(golden / "backbones", model)
    expected = {name: tuple(shape) for name, shape, *_ in description["state"]}
    for name in list(expected):
        if name.startswith("_fc.") or name.endswith("num_batches_tracked"):
            del expected[name]
    found = models.torch_tensors(models.backbone(model))
    assert {name: tensor.shape for name, tensor in found.items()} == expected


def test_channels_are_rounded_to_eight():
    # 16 * 1.1 = 17.6 -> 16; 320 * 1.2 = 384; 8 * 0.5 = 4 -> at least 8.
    assert [scaled(16, 1.1), scaled(320, 1.2), scaled(8, 0.5)] == [16, 384, 8]
    # 8 is within a tenth of 8.8, but not of 9, which goes up instead.
    assert [scaled(8, 1.1), scaled(9, 1.0)] == [8, 16]


def _block(drop_rate: float) -> InvertedResidual:
    block = InvertedResidual(
        4,
        4,
        3,
        stride=1,
        expand=1,
        is_residual=True,
        squeeze=False,
        activation=jax.nn.swish,
        drop_rate=drop_rate,
        dtype=None,
    )
    block.bn2.bias = nnx.Param(jnp.ones(4))
    return block


def test_stochastic_depth_drops_whole_images_and_makes_up_for_them():
    # With kernels at 0 the branch is the bias 1, so an image gains 0 or 1 / keep.
    block = _block(drop_rate=0.25)
    block.bn2.use_running_average = block.bn1.use_running_average = False
    y = block(jnp.zeros((400, 2, 2, 4)), key=jax.random.key(0))
    per_image = np.asarray(y).reshape(400, -1)
    assert (per_image == per_image[:, :1]).all()
    values, counts = np.unique(per_image[:, 0], return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(counts[0] / 400 - 0.25) < 0.08
    with pytest.raises(ValueError, match="key: this network has stochastic depth"):
        block(jnp.zeros((2, 2, 2, 4)))


def test_stochastic_depth_is_off_in_evaluation_and_grows_with_depth():
    np.testing.assert_array_equal(_block(0.9)(jnp.zeros((2, 2, 2, 4))), 1)
    network = models.backbone("efficientnet_b0", stochastic_depth=0.2, rngs=None)
    rates = [getattr(network.units[name], "drop_rate", 0) for name in network.order]
    np.testing.assert_allclose(rates[1:-1], 0.2 * np.arange(16) / 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stochastic_depth": 1.0}, r"stochastic_depth: expected a rate in \[0, 1\)"),
        ({"last_stride": 4}, "last_stride: expected 1 or 2, got 4"),
        ({"depth": 0}, "depth: expected a number above 0, got 0"),
    ],
)
def test_bad_options_are_named(options, message: str):
    with pytest.raises(ValueError, match=message):
        models.backbone("efficientnet_b0", **options)


def test_branches_cannot_part_inside_an_efficientnet():
    with pytest.raises(
        ValueError, match="trunk_split: this backbone can be split at '"
    ):
        models.build("efficientnet_b1", num_classes=5, rngs=None)
