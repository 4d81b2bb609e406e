"""From a split's images to batches: sampler, reading ahead, augmentation, previews."""

from dex_jax._checks import missing_extra

try:
    from dex_jax.pipeline._augment import augment, normalize
    from dex_jax.pipeline._batches import (
        EvalBatch,
        TrainBatch,
        eval_batches,
        train_batches,
    )
    from dex_jax.pipeline._preview import preview
    from dex_jax.pipeline._sampler import IdentityBatches
    from dex_jax.pipeline._thumbnails import thumbnail
except ModuleNotFoundError as error:
    raise missing_extra(error, "data") from None

__all__ = [
    "EvalBatch",
    "IdentityBatches",
    "TrainBatch",
    "augment",
    "eval_batches",
    "normalize",
    "preview",
    "thumbnail",
    "train_batches",
]
