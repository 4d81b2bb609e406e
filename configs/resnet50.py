"""ResNet50 under the three-branch partition head.

Command: `python train.py --config configs/resnet50.py --config.data.root=DIR`
Ours (`--dry_run`): 71.7 M parameters, 3,745 Gflop a step. No mAP of ours:
CityFlow-ReID is given out on request and was not at hand.
"""

from ml_collections import ConfigDict

from configs.common import with_backbone


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    return with_backbone("resnet50", "resnet50")
