"""ResNet50-IBN-a: the backbone of the paper's Tables 1 to 6.

Command: `python train.py --config configs/resnet50_ibn.py --config.data.root=DIR`
Ours (`--dry_run`): 71.7 M parameters, 3,745 Gflop a step. No mAP of ours:
CityFlow-ReID is given out on request and was not at hand.

The paper's figures with it (validation of 100 identities, mAP / CMC@1 / CMC@5):
72.4 / 87.9 / 91.4 at one scale, 73.8 / 89.0 / 92.0 over four, 85.0 / 92.6 / 94.7 with
DEx, DBA and diffusion. It trains on CityFlow-ReID and 193 identities of VehicleX.
"""

from ml_collections import ConfigDict

from configs.common import with_backbone


def get_config() -> ConfigDict:
    """The paper's recipe with this backbone."""
    return with_backbone("resnet50_ibn", "resnet50_ibn_a")
