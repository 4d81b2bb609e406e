"""Identity-balanced batches: P identities with K images each."""

import warnings

import numpy as np

from dex_jax._checks import check_count


class IdentityBatches:
    """Batches of P identities x K images as a pure function of (seed, step).

    One epoch is one pass over the identities (paper, section 4.2; the reading of
    "epoch" is ours): they are shuffled and cut into groups of P, and the last group is
    filled up from the beginning of the same shuffle. An identity's K images are drawn
    without repetition where it has K; where it has fewer, each is taken equally often
    as far as K allows. No state is kept, so training resumes from its step alone, and
    every host computes the same batch.

    Args:
        identities: integer `[N]`, at least 0; any values.
        ids_per_batch: P.
        images_per_id: K; the paper takes 4 to 8 by backbone.
        seed: at least 0.

    Attributes:
        steps_per_epoch: batches in one pass over the C identities, `ceil(C / P)`.
        batch_size: `B = P * K`.
        repeated: identities with fewer than K images.

    Raises:
        ValueError: no images, unlabelled images, or fewer identities than P.

    Warns:
        UserWarning: some identities have fewer than K images; once, with their count.

    Example:
        >>> batches = IdentityBatches([3, 3, 8, 8, 9, 9], ids_per_batch=2,
        ...                           images_per_id=2)
        >>> batches.steps_per_epoch, batches.indices(0).shape
        (2, (4,))
    """

    def __init__(
        self,
        identities: np.ndarray | list[int],
        *,
        ids_per_batch: int = 8,
        images_per_id: int = 4,
        seed: int = 0,
    ):
        values = np.asarray(identities)
        if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
            raise ValueError(
                "identities: expected at least one integer [N], got "
                f"{values.dtype} of shape {values.shape}"
            )
        if values.min() < 0:
            raise ValueError(
                f"identities: {np.sum(values < 0)} image(s) are unlabelled, first at "
                f"{np.argmax(values < 0)}; batches need an identity for each"
            )
        self.ids_per_batch = check_count(ids_per_batch, "ids_per_batch")
        self.images_per_id = check_count(images_per_id, "images_per_id")
        self.seed = check_count(seed, "seed", least=0, most=None)
        self.size = values.size
        order = np.argsort(values, kind="stable")
        first = np.unique(values[order], return_index=True)[1]
        self._members = np.split(order, first[1:])  # C lists of image indices
        self._shuffle = (-1, np.empty(0, np.int64))
        if len(self._members) < self.ids_per_batch:
            raise ValueError(
                f"ids_per_batch: {self.ids_per_batch} identities a batch, but the "
                f"training images show only {len(self._members)}"
            )
        self.batch_size = self.ids_per_batch * self.images_per_id
        self.steps_per_epoch = -(-len(self._members) // self.ids_per_batch)
        self.repeated = sum(len(m) < self.images_per_id for m in self._members)
        if self.repeated:
            warnings.warn(
                f"{self.repeated} of {len(self._members)} identities have fewer than "
                f"images_per_id = {self.images_per_id} images: theirs are repeated",
                stacklevel=2,
            )

    def indices(self, step: int) -> np.ndarray:
        """Returns the images of batch `step`, int64 `[B]`, K in a row per identity.

        Args:
            step: counted from 0 over all epochs.
        """
        step = check_count(step, "step", least=0)
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.ids_per_batch
        chosen = self._order(epoch).take(
            np.arange(start, start + self.ids_per_batch), mode="wrap"
        )  # [P]
        rng = np.random.default_rng((self.seed, 1, step))
        return np.concatenate([self._draw(rng, self._members[i]) for i in chosen])

    def _order(self, epoch: int) -> np.ndarray:
        # The last shuffle is remembered; replacing the pair at once keeps threads safe.
        known, order = self._shuffle
        if known != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch))
            order = rng.permutation(len(self._members))
            self._shuffle = (epoch, order)
        return order

    def _draw(self, rng: np.random.Generator, members: np.ndarray) -> np.ndarray:
        passes = -(-self.images_per_id // len(members))
        drawn = [rng.permutation(members) for _ in range(passes)]
        return np.concatenate(drawn)[: self.images_per_id]
