"""The figures that a training is watched by."""

from dex_jax.data import ReidData
from dex_jax.evaluation._extraction import Apply, describe_data
from dex_jax.evaluation._results import score_chain
from dex_jax.rerank import parse


def validate(
    apply: Apply, data: ReidData, *, image_size: int, batch_size: int
) -> dict[str, float]:
    """Ranks the validation set by cosine at one scale and scores it by its protocol.

    The figures are those that an evaluation of the same split, at the same scale and
    without re-ranking, gives.

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
    file, _, _ = describe_data(
        apply, data, size=image_size, batch_size=batch_size, progress=False
    )
    found = score_chain(file, parse("none"), data.protocol)
    return {
        "mean_ap": found.mean_ap,
        "cmc_1": float(found.cmc[0]),
        "cmc_5": float(found.cmc[4]),
        "mean_inp": found.mean_inp,
    }
