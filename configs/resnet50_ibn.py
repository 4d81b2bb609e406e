"""ResNet50-IBN-a: the backbone of the paper's Tables 1 to 6.

Command: `python train.py --config configs/resnet50_ibn.py`
(paper, section 4.2: one of its eight backbones).

The paper's figures with it (validation of 100 identities, mAP / CMC@1 / CMC@5):
72.4 / 87.9 / 91.4 at one scale, 73.8 / 89.0 / 92.0 over four, 85.0 / 92.6 / 94.7 with
DEx, DBA and diffusion. It trains on CityFlow-ReID and 193 identities of VehicleX.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    config: Any = common.get_config()
    config.name = "resnet50_ibn"
    config.model.name = "resnet50_ibn_a"
    return config
