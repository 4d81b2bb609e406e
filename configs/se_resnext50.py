"""SE-ResNeXt50 (32x4d).

Command: `python train.py --config configs/se_resnext50.py`
(paper, section 4.2: one of its eight backbones).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    config: Any = common.get_config()
    config.name = "se_resnext50"
    config.model.name = "se_resnext50"
    return config
