"""ResNet50 under the three-branch partition head.

Command: `python train.py --config configs/resnet50.py`
(paper, section 4.2: one of its eight backbones).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    config: Any = common.get_config()
    config.name = "resnet50"
    config.model.name = "resnet50"
    return config
