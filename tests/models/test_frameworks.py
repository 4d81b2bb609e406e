"""Checkpoints of other people's frameworks: their names, and what is beside them."""

import argparse
import collections
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dex_jax import models, training
from tests.models import golden_networks

Tensors = dict[str, np.ndarray]

BIAS = np.zeros(4, np.float32)
COUNTED = {"bn1.num_batches_tracked": np.int64(3) * np.ones((), np.int64)}


def _slim(seed: int = 0, **options) -> models.Chain:
    return models.backbone("resnet_slim", width=4, rngs=seed, **options)


def _trained(**options) -> Tensors:
    """A backbone's tensors, every one of them filled with values of its own."""
    bare = models.torch_tensors(_slim(**options))
    return {
        name: golden_networks.weight(name, tensor.shape, salt="frame:", gain=1.0)
        for name, tensor in bare.items()
    }


def _behind(prefix: str, tensors: Tensors, **others: np.ndarray) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()} | others


def _map(network: models.Chain) -> np.ndarray:
    return np.asarray(
        jax.jit(network)(jnp.asarray(golden_networks.images([1, 3, 32, 32])))
    )


def _numbered(tensors: Tensors, first: int) -> Tensors:
    stages = {f"layer{n}": str(first + n - 1) for n in (1, 2, 3, 4)}
    words = stages | {"conv1": "0", "bn1": "1"}
    return {
        f"{words[name.split('.')[0]]}.{name.split('.', 1)[1]}": tensor
        for name, tensor in tensors.items()
    }


BOTTLENECK = {
    "bottleneck.weight": BIAS,
    "bottleneck.bias": BIAS,
    "bottleneck.running_mean": BIAS,
    "bottleneck.running_var": BIAS,
    "classifier.weight": BIAS,
}
FAST_REID = {
    "heads.bottleneck.0.weight": BIAS,
    "heads.weight": BIAS,
    "pixel_mean": BIAS,
    "pixel_std": BIAS,
}

# Framework: how it names a backbone's tensors, and the prefix that is found.
FRAMEWORKS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "torchreid": (lambda t: t | {"classifier.weight": BIAS, "fc.0.weight": BIAS}, ""),
    "bag of tricks, bare": (lambda t: t | BOTTLENECK, ""),
    "reid-strong-baseline": (lambda t: _behind("base.", t) | BOTTLENECK, "base."),
    "data parallel": (
        lambda t: _behind("module.", _behind("base.", t) | BOTTLENECK),
        "module.base.",
    ),
    "fast-reid": (lambda t: _behind("backbone.", t) | FAST_REID, "backbone."),
    "fast-reid, data parallel": (
        lambda t: _behind("module.", _behind("backbone.", t) | FAST_REID),
        "module.backbone.",
    ),
    "lightning": (
        lambda t: _behind("model.backbone.", t) | {"loss.centers": BIAS},
        "model.backbone.",
    ),
    "its own classifier": (
        lambda t: _behind("net.", t | {"fc.weight": BIAS}) | {"memory.bank": BIAS},
        "net.",
    ),
    "sequential": (
        lambda t: _behind("module.base.", _numbered(t, 4)) | {"feat_bn.weight": BIAS},
        "module.base.",
    ),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_backbone_is_found_behind_any_prefix(framework: str):
    rename, prefix = FRAMEWORKS[framework]
    bare = _trained()
    held = rename(bare | COUNTED) if framework != "sequential" else rename(bare)
    network, reference = _slim(1), _slim(2)
    models.load_torch_weights(reference, bare)
    report = models.load_torch_weights(network, held)
    assert report.prefix == prefix
    assert len(report.loaded) == len(bare)
    assert report.missing == report.unexpected == ()
    # Nothing is lost from the report: loaded or dropped, under the file's names.
    dropped = {
        n for n in held if n in report.dropped or n[len(prefix) :] in report.dropped
    }
    assert len(dropped) == len(report.dropped) == len(held) - len(bare)
    exported = models.torch_tensors(network)
    for name, tensor in bare.items():
        np.testing.assert_array_equal(exported[name], tensor)
    np.testing.assert_array_equal(_map(network), _map(reference))
    assert (f"prefix {prefix!r}" in str(report)) == bool(prefix)


@pytest.mark.parametrize(
    "path", ["state_dict", "model", "net", "teacher", "a/state_dict", "a/b"]
)
@pytest.mark.parametrize("old", [False, True])
def test_dictionaries_inside_dictionaries(tmp_path: Path, path: str, *, old: bool):
    torch = pytest.importorskip("torch")
    bare = _trained()
    held = _behind("module.backbone.", bare) | {"module.heads.weight": BIAS}
    content: dict = {name: torch.from_numpy(t.copy()) for name, t in held.items()}
    for word in reversed(path.split("/")):
        content = {word: content, "epoch": 3, "best": torch.ones(()), "optimizer": {}}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
    tensors = models.read_torch_checkpoint(tmp_path / "x.pth")
    network = _slim(1)
    report = models.load_torch_weights(network, tensors)
    assert report.missing == report.unexpected == ()
    assert report.prefix.endswith("module.backbone.")
    exported = models.torch_tensors(network)
    for name, tensor in bare.items():
        np.testing.assert_array_equal(exported[name], tensor)


def test_what_trainers_leave_beside_weights_does_not_matter(tmp_path: Path):
    torch = pytest.importorskip("torch")
    bare = {name: torch.from_numpy(t.copy()) for name, t in _trained().items()}
    trained = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    content = {
        "state_dict": bare,
        "optimizer_states": [optimizer.state_dict()],
        "scheduler": schedule.state_dict(),
        "loops": collections.defaultdict(int, steps=3),
        "args": argparse.Namespace(root=Path("/data"), sizes={256, 128}, half=1.0),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "best": np.float64(0.5),
    }
    for old in (False, True):
        file = tmp_path / f"{old}.pth"
        torch.save(content, file, _use_new_zipfile_serialization=not old)
        tensors = models.read_torch_checkpoint(file)
        assert tensors.keys() == bare.keys()


def test_a_training_starts_from_them(tmp_path: Path):
    bare = _trained()
    save_file(
        _behind("module.base.", bare, **{"module.bottleneck.weight": BIAS}),
        tmp_path / "reid.safetensors",
    )
    network = training.build_network(
        "resnet_slim", num_classes=3, seed=1, dim=4, width=4, trunk_split="none"
    )
    loaded, said = training.load_pretrained(network, tmp_path / "reid.safetensors")
    assert "reid.safetensors: 91 tensors loaded by the names of torchvision" in said
    assert (
        "0 missing, 0 left over\nprefix 'module.base.'\n1 dropped: module.bot" in said
    )
    exported = models.torch_tensors(models.merge(*loaded[:3]))
    for name, tensor in bare.items():
        np.testing.assert_array_equal(exported[name], tensor)


def test_a_training_names_the_file_that_does_not_fit(tmp_path: Path):
    other = models.torch_tensors(_slim(ibn=False))
    save_file(_behind("base.", other), tmp_path / "other.safetensors")
    network = training.build_network(
        "resnet_slim", num_classes=3, seed=1, dim=4, width=4, trunk_split="none"
    )
    message = r"other\.safetensors: tensors: the checkpoint is of another architecture"
    with pytest.raises(ValueError, match=message):
        training.load_pretrained(network, tmp_path / "other.safetensors")


def test_two_networks_that_fit_are_a_choice_of_the_user():
    student, teacher = _trained(), models.torch_tensors(_slim(5))
    both = _behind("online.", student) | _behind("momentum.", teacher)
    network = _slim(1)
    before = models.torch_tensors(network)
    message = r"2 networks .* fit equally well, under 'online\.', 'momentum\.'.*prefix="
    with pytest.raises(ValueError, match=message):
        models.load_torch_weights(network, both)
    jax.tree.map(np.testing.assert_array_equal, models.torch_tensors(network), before)
    for prefix, values in (("online", student), ("momentum.", teacher)):
        report = models.load_torch_weights(network, both, prefix=prefix)
        assert report.prefix == prefix.rstrip(".") + "."
        assert len(report.dropped) == len(values)
        jax.tree.map(
            np.testing.assert_array_equal, models.torch_tensors(network), values
        )
    with pytest.raises(
        ValueError, match=r"prefix: .* 'ema'; .* 'online\.', 'momentum\.'"
    ):
        models.load_torch_weights(network, both, prefix="ema")
    many = {f"n{i}.conv1.weight": student["conv1.weight"] for i in range(2_000)}
    with pytest.raises(ValueError, match=r"2000 networks .*at most 1,000 are compared"):
        models.load_torch_weights(network, many)
    # Copies of one network leave nothing to choose.
    same = _behind("online.", student) | _behind("momentum.", student)
    assert models.load_torch_weights(network, same).prefix == "online."


@pytest.mark.parametrize(
    "name",
    [
        "layer1.0.se.fc.0.weight",  # squeeze-excite without biases
        "NL_2.0.g.weight",  # non-local blocks
        "layer1.0.IN.weight",  # IBN-b
    ],
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_blocks_that_ours_lack_are_refused(name: str, prefix: str):
    held = _behind(prefix, _trained() | {name: BIAS}) | FAST_REID
    message = rf"another architecture .* Unexpected: {re.escape(name)}"
    with pytest.raises(ValueError, match=message):
        models.load_torch_weights(_slim(), held)


@pytest.mark.parametrize(
    ("network", "file", "hint"),
    [
        ("resnet_slim", "resnet50", "The file fits 'resnet50'"),
        ("resnet50_ibn_a", "se_resnext50", "The file fits 'se_resnext50'"),
        ("efficientnet_b0", "resnet50_ibn_a", "The file fits 'resnet50_ibn_a'"),
        ("resnet50", "vit", "None of our backbones"),
    ],
)
def test_another_architecture_is_named(network: str, file: str, hint: str):
    if file == "vit":
        held = {"base.blocks.0.attn.qkv.weight": BIAS, "base.norm.weight": BIAS}
    else:
        # Views of one value: nothing of these networks has to be filled.
        shapes = models.torch_tensors(models.backbone(file, rngs=0))
        held = _behind("module.backbone.", shapes)
    with pytest.raises(ValueError, match=re.escape(hint)):
        models.load_torch_weights(models.backbone(network, rngs=1), held)


@pytest.mark.parametrize(
    ("rename", "options", "note"),
    [
        ("reid-strong-baseline", {"stem_relu": False}, "stem_relu=False"),
        ("fast-reid", {"pool": "ceil"}, "pool='ceil'"),
    ],
)
def test_what_no_tensor_shows_is_said(rename: str, options: dict, note: str):
    held = FRAMEWORKS[rename][0](_trained(ibn=False))
    network, theirs = _slim(ibn=False), _slim(ibn=False, **options)
    report = models.load_torch_weights(network, held)
    assert note in str(report)
    assert not models.load_torch_weights(theirs, held).notes
    assert np.abs(_map(network) - _map(theirs)).max() > 1e-3


def test_a_stem_without_relu_is_pytorchs():
    torch = pytest.importorskip("torch")
    held = _behind("base.", _numbered(_trained(ibn=False), 3))
    network = _slim(ibn=False, stem_relu=False)
    report = models.load_torch_weights(network, held)
    assert report.dialect == "numbered_without_relu"
    x = golden_networks.images([1, 3, 32, 32])
    with torch.no_grad():
        y = torch.nn.functional.conv2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(held["base.0.weight"]),
            stride=2,
            padding=3,
        )
        state = ("running_mean", "running_var", "weight", "bias")
        y = torch.nn.functional.batch_norm(
            y, *(torch.from_numpy(held[f"base.1.{name}"]) for name in state)
        )
        expected = torch.nn.functional.max_pool2d(y, 3, 2, 1).numpy()
    got = np.asarray(network.units["stem"](jnp.asarray(x))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got.min() < 0
