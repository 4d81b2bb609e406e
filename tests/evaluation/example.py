"""A small set of embeddings with every label."""

import numpy as np

from dex_jax.embeddings import EmbeddingFile


def make_file(*, identities: int = 6, cameras: int = 3, images: int = 3):
    """One query an identity at camera 0; a tracklet for each identity and camera."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(identities, 16))
    labels = np.array(
        [
            (i, c, i * cameras + c)
            for i in range(identities)
            for c in range(cameras)
            for _ in range(images)
        ]
    )
    return EmbeddingFile(
        (centres + 0.8 * rng.normal(size=centres.shape)).astype(np.float32),
        (centres[labels[:, 0]] + 0.8 * rng.normal(size=(len(labels), 16))).astype(
            np.float32
        ),
        tuple(f"query/{i}.jpg" for i in range(identities)),
        tuple(f"gallery/{i}.jpg" for i in range(len(labels))),
        query_identities=np.arange(identities),
        gallery_identities=labels[:, 0],
        query_cameras=np.zeros(identities, np.int64),
        gallery_cameras=labels[:, 1],
        query_tracklets=np.full(identities, -1),
        gallery_tracklets=labels[:, 2],
    )
