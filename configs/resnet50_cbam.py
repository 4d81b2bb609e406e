"""ResNet50 with CBAM attention in every bottleneck.

Command: `python train.py --config configs/resnet50_cbam.py`
(paper, section 4.2: one of its eight backbones).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    config: Any = common.get_config()
    config.name = "resnet50_cbam"
    config.model.name = "resnet50_cbam"
    return config
