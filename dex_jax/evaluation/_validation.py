"""The figures that a training is watched by."""

import jax.numpy as jnp
import numpy as np

from dex_jax import metrics
from dex_jax.data import ReidData
from dex_jax.evaluation._extraction import Apply, extract
from dex_jax.rerank import cosine_similarity


def validate(
    apply: Apply, data: ReidData, *, image_size: int, batch_size: int
) -> dict[str, float]:
    """Ranks the validation set by cosine at one scale and scores it by its protocol.

    Args:
        apply: normalised float32 images `[B, S, S, 3]` to descriptors `[B, D]`.
        data: its query and gallery are the validation set.
        image_size: S, in pixels.
        batch_size: B.

    Returns:
        `mean_ap`, `cmc_1`, `cmc_5` and `mean_inp`, shares in [0, 1].

    Raises:
        ValueError: no query has a positive, or descriptors that are not finite.
    """
    query, gallery = (
        jnp.asarray(
            extract(
                apply,
                split,
                image_size=image_size,
                batch_size=batch_size,
                progress=False,
            )
        )
        for split in (data.query, data.gallery)
    )
    junk = data.protocol.remove_same_camera
    result = metrics.evaluate(
        cosine_similarity(query, gallery),
        query_identities=data.query.identities,
        gallery_identities=data.gallery.identities,
        query_cameras=data.query.cameras if junk else None,
        gallery_cameras=data.gallery.cameras if junk else None,
        top=data.protocol.top,
        ap_denominator=data.protocol.ap_denominator,
    )
    cmc = np.asarray(result.cmc)
    return {
        "mean_ap": float(result.mean_ap),
        "cmc_1": float(cmc[0]),
        "cmc_5": float(cmc[min(4, len(cmc) - 1)]),
        "mean_inp": float(result.mean_inp),
    }
