import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import models
from dex_jax.models._torch_names import RESNET
from tests.models import golden_networks


def _tiny() -> models.Chain:
    return models.backbone("resnet_slim", width=4, last_stride=2)


def _golden_tiny(golden) -> dict[str, np.ndarray]:
    return models.read_torch_checkpoint(
        golden / "checkpoints" / "tiny10_wrapped_module_zip.pth.tar"
    )


def test_a_loaded_checkpoint_computes_what_pytorch_does(golden):
    network = _tiny()
    report = models.load_torch_weights(network, _golden_tiny(golden))
    assert not report.missing
    assert not report.unexpected
    assert {"fc.bias", "fc.weight"} < set(report.dropped)
    assert len(report.loaded) + len(report.dropped) == 110
    assert str(report).startswith("91 tensors loaded (torchvision names)")
    expected = np.load(golden / "checkpoints" / "tiny_forward.npz")
    x = golden_networks.images([2, 3, 64, 64], salt="dex-ckpt:")
    features = np.asarray(jax.jit(network)(jnp.asarray(x))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(features, expected["eval/feat"], rtol=1e-4, atol=1e-4)


def test_export_returns_the_checkpoint(golden, tmp_path):
    network = _tiny()
    original = _golden_tiny(golden)
    models.load_torch_weights(network, original)
    models.save_torch_weights(network, tmp_path / "tiny.safetensors")
    exported = models.read_torch_checkpoint(tmp_path / "tiny.safetensors")
    for name, tensor in exported.items():
        np.testing.assert_array_equal(tensor, original[f"module.{name}"])
    left = {n.removeprefix("module.") for n in original} - set(exported)
    assert all(n.startswith("fc.") or n.endswith("tracked") for n in left)


@pytest.mark.parametrize(
    ("model", "column"),
    [
        ("efficientnet_b0", "lukemelas"),
        ("efficientnet_b0", "timm"),
        ("efficientnet_b3", "timm"),
        ("se_resnext50_32x4d", "cadene"),
        ("se_resnext50_32x4d", "timm"),
    ],
)
def test_names_of_other_libraries(golden, model: str, column: str):
    folder = golden / "backbones"
    keymap = json.loads((folder / "keymaps" / f"{model}.json").read_text())
    wanted = keymap["columns"].index(column)
    description, _ = golden_networks.read(folder, model)
    tensors = golden_networks.tensors(description)
    renamed = {row[wanted]: tensors[row[0]] for row in keymap["rows"]}
    network = models.backbone(model.removesuffix("_32x4d"))
    report = models.load_torch_weights(network, renamed)
    assert not report.missing
    assert not report.unexpected
    dialect = "torchvision" if (model[0], column) == ("s", "timm") else column
    assert report.dialect == dialect
    exported = models.torch_tensors(network, dialect=dialect)
    for name, tensor in exported.items():
        np.testing.assert_array_equal(tensor, renamed[name])


def test_cbam_may_be_added_to_a_plain_checkpoint():
    plain = models.torch_tensors(models.backbone("resnet_slim", width=2))
    for cbam in ("blocks", "last"):
        network = models.backbone("resnet_slim", width=2, cbam=cbam, rngs=1)
        report = models.load_torch_weights(network, plain)
        assert report.missing
        assert all("cbam." in name for name in report.missing)
    with pytest.raises(ValueError, match=r"another architecture .* Unexpected: cbam\."):
        models.load_torch_weights(
            models.backbone("resnet_slim", width=2), models.torch_tensors(network)
        )


def test_another_architecture_is_an_error_and_changes_nothing():
    ibn = models.backbone("resnet_slim", width=2)
    plain = models.torch_tensors(models.backbone("resnet_slim", width=2, ibn=False))
    before = models.torch_tensors(ibn)
    message = r"another architecture .* Missing: layer1\.0\.bn1\.BN.* Unexpected: lay"
    with pytest.raises(ValueError, match=message):
        models.load_torch_weights(ibn, plain)
    wide = models.torch_tensors(models.backbone("resnet_slim", width=4))
    with pytest.raises(ValueError, match=r"has shape .* needs \(.*another archi"):
        models.load_torch_weights(ibn, wide, partial=True)
    jax.tree.map(np.testing.assert_array_equal, models.torch_tensors(ibn), before)
    report = models.load_torch_weights(ibn, plain, partial=True)
    assert report.unexpected
    with pytest.raises(ValueError, match=r"none of the 1 names belongs .* has weight"):
        models.load_torch_weights(ibn, {"weight": np.zeros(3)})


def test_a_checkpoint_is_checked_against_shapes_alone():
    network = models.backbone("resnet_slim", width=2, rngs=None)
    tensors = models.torch_tensors(models.backbone("resnet_slim", width=2))
    report = models.load_torch_weights(network, tensors)
    assert len(report.loaded) == len(tensors)
    stem: Any = network.units["stem"]
    kernel = stem.conv1.kernel.get_value()
    assert isinstance(kernel, jax.ShapeDtypeStruct)
    wide = models.torch_tensors(models.backbone("resnet_slim", width=4))
    with pytest.raises(ValueError, match="another architecture"):
        models.load_torch_weights(network, wide)


def test_every_branch_gets_its_own_copy():
    source = models.torch_tensors(models.backbone("resnet_slim", width=2))
    network = models.build(
        "resnet_slim", num_classes=3, dim=4, width=2, trunk_split="stage4", rngs=1
    )
    models.load_torch_weights(network, source)
    _, params, _ = models.split(network)
    for branch in ("branch1", "branch2", "branch3"):
        kernel = params["branches"][branch]["units"]["layer4_0"]["conv2"]["kernel"]
        expected = source["layer4.0.conv2.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, expected)
    with pytest.raises(ValueError, match="branches have weights of their own"):
        models.torch_tensors(network)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def fill_disk(tensors, path, **_):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    network = models.backbone("resnet_slim", width=2)
    models.save_torch_weights(network, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    monkeypatch.setattr("dex_jax.models._weights.save_file", fill_disk)
    with pytest.raises(OSError, match="No space"):
        models.save_torch_weights(network, tmp_path / "x.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [whole]


def test_where_to_save_is_checked(tmp_path):
    network = models.backbone("resnet_slim", width=2)
    with pytest.raises(ValueError, match=r"ending in \.safetensors, got .*x\.pth"):
        models.save_torch_weights(network, tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        models.save_torch_weights(network, tmp_path / "none" / "x.safetensors")
    with pytest.raises(ValueError, match="dialect: expected one of 'torchvision', 'ca"):
        models.torch_tensors(network, dialect="keras")
    assert tuple(RESNET) == ("torchvision", "cadene")
