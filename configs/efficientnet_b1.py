"""EfficientNet-B1, one trunk for all parts.

Command: `python train.py --config configs/efficientnet_b1.py`
(paper, section 4.2: one of its eight backbones).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    config: Any = common.get_config()
    config.name = "efficientnet_b1"
    config.model.name = "efficientnet_b1"
    config.model.trunk_split = "none"
    return config
