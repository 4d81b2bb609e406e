"""The paper's settings, which every experiment file starts from.

An experiment file calls `get_config()` of this one and changes a few fields. Each
section is handed on as keyword arguments, so the signatures in `dex_jax` say what a
field means; marks: [P] the paper says it, [A] its authors' later code does, [S] other
public code, [I] inferred.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's recipe (sections 3.1, 4.1 and 4.2) around a ResNet50-IBN-a."""
    config: Any = ConfigDict()
    config.name = "common"
    config.seed = 0
    config.epochs = 500  # [P] an epoch is one pass over identities [S]
    config.image_size = 288  # [P]

    config.data = _data()

    config.batch = ConfigDict()
    config.batch.ids_per_batch = 8  # [P]
    config.batch.images_per_id = 4  # [P] 4 to 8, by backbone

    config.augment = ConfigDict()
    config.augment.flip = 0.5  # [P] probability
    config.augment.contrast = 0.1  # [P] relative range
    config.augment.brightness = 0.1  # [A]
    config.augment.erase = 0.5  # [P] probability of random erasing

    config.model = _model()

    config.loss = _loss()

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # [P]
    config.optimizer.learning_rate = 2e-4  # [P]
    config.optimizer.schedule = "exponential"  # [P]
    config.optimizer.decay = 0.01  # [P] per epoch
    config.optimizer.warmup_epochs = 0.0  # [A]
    config.optimizer.weight_decay = 0.0  # [A]
    config.optimizer.clip_norm = 0.0  # 0 = no clipping
    config.optimizer.accumulate = 1  # micro-batches per update
    config.optimizer.average = 0.0  # decay of the weights' moving average; 0 = none

    config.evaluation = ConfigDict()
    config.evaluation.batch_size = 32
    # What `evaluate.py` scores: "validation", "test", or "auto": the test split where
    # its queries have identities, else the validation.
    config.evaluation.split = "auto"
    config.evaluation.every_epochs = 10  # 0 = only at the end
    config.evaluation.scales = (0.9, 1.0, 1.1, 1.2)  # [P]

    # How a run is carried out; changing these does not make it another run.
    config.run = ConfigDict()
    config.run.checkpoint_minutes = 10.0
    config.run.log_steps = 10
    config.run.validate = True  # False = never: nothing is known of the best state
    config.run.workers = 2  # threads that read and decode
    config.run.shard_parameters = False
    config.run.remat = False  # compute blocks again in the backward pass: less memory
    return config


def _data() -> ConfigDict:
    """Which images, and which of them are held back."""
    section: Any = ConfigDict()
    section.name = "cityflow"
    section.root = ""  # where the data set lies; data sets that need it say so
    section.data_dir = ""  # where built sets are cached; "" = the default
    section.size = ""  # for sets that come in sizes
    section.options = ConfigDict()  # of the set's loader, by name
    section.on_bad_image = "error"  # "skip" leaves bad images out and counts them
    section.hold_out = 100  # [P] training identities held back for validation
    section.hold_out_seed = 0
    section.hold_out_by = "identity"  # "scene": identities of unseen cameras
    # [I] Scored without the gallery images of a query's own camera, in validations
    # and evaluations alike; False = as the data set's protocol says.
    section.remove_same_camera = False
    section.expected_identities = 426  # classes of a dry run without data
    # Synthetic images beside the real ones, where the data set has such a companion:
    # "real" (none), "balanced" or "full" [P].
    section.mixing = "balanced"
    section.synthetic_root = ""
    section.synthetic_identities = 193  # [P] in the balanced mix
    return section


def _model() -> ConfigDict:
    """The network: a backbone and the parts that its map is cut into."""
    section: Any = ConfigDict()
    section.name = "resnet50_ibn_a"
    section.parts = ((2, 3, 1), (2, 1, 1), (2, 1, 3))  # [I] 17 parts
    section.expected_parts = 17  # [P]
    section.trunk_split = "stage3.1"  # [S]
    section.dim = 256  # [P]
    section.last_stride = 1  # [S]
    section.pooling = "max"  # [P] or "gem", a power mean with a learned power
    section.dtype = "float32"  # of the arithmetic; parameters stay float32
    # A .pth or .safetensors file, "package" for the weights that an installed package
    # carries, "" for random ones.
    section.pretrained = ""
    section.options = ConfigDict()  # of the backbone, by name
    return section


def _loss() -> ConfigDict:
    """The losses and their weights."""
    section: Any = ConfigDict()
    section.epsilon = 0.1  # [P]
    section.margin = 1.2  # [A]
    section.soft_margin = False  # log(1 + exp(d_p - d_n)) instead of a margin
    section.cross_entropy_weight = 2.0  # [P]
    section.triplet_weight = 1.0  # [P]
    section.circle_weight = 0.0  # 0 = no circle loss
    section.circle_margin = 0.25
    section.circle_scale = 128.0
    section.arcface = False  # cosine classifier and angular margin
    section.angular_margin = 0.3
    section.angular_scale = 30.0
    return section


def with_backbone(name: str, model: str, **settings: Any) -> ConfigDict:
    """The paper's recipe with one of its eight backbones (section 4.2).

    Args:
        name: of the experiment.
        model: the backbone, see `dex_jax.models`.
        **settings: fields of `config.model` that this backbone changes.
    """
    config: Any = get_config()
    config.name = name
    config.model.update(name=model, **settings)
    return config
