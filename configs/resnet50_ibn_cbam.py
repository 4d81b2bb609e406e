"""ResNet50-IBN-a with CBAM attention in every bottleneck.

Command: `python train.py --config configs/resnet50_ibn_cbam.py --config.data.root=DIR`
Ours (`--dry_run`): 78.7 M parameters, 3,800 Gflop a step. No mAP of ours:
CityFlow-ReID is given out on request and was not at hand.
"""

from ml_collections import ConfigDict

from configs.common import with_backbone


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    return with_backbone("resnet50_ibn_cbam", "resnet50_ibn_a_cbam")
