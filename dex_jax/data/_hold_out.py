"""The paper's splits: held-back identities, synthetic identities, class labels."""

from dataclasses import replace

import numpy as np

from dex_jax._checks import check_choice, check_count
from dex_jax.data._records import (
    UNKNOWN,
    ReidData,
    ReidSplit,
    concatenate,
)

REAL = "real"


def class_labels(split: ReidSplit) -> tuple[np.ndarray, int]:
    """Numbers the identities of a training split.

    The class of an image is the rank of its identity among the sorted identities, so
    that gaps in the source's numbering leave no empty class.

    Args:
        split: N labelled images.

    Returns:
        Labels int32 `[N]` in 0..C-1, and C.

    Raises:
        ValueError: the split is empty or an image has no identity.

    Example:
        >>> split = ReidSplit(np.zeros((3, 2, 2, 3), np.uint8), tuple("abc"),
        ...                   np.array([40, 7, 40]))
        >>> class_labels(split)
        (array([1, 0, 1], dtype=int32), 2)
    """
    if not len(split):
        raise ValueError("split: is empty, there is nothing to learn from")
    unlabelled = np.flatnonzero(split.identities == UNKNOWN)
    if unlabelled.size:
        raise ValueError(
            f"split: {unlabelled.size} image(s) have no identity, first "
            f"{split.names[unlabelled[0]]!r}"
        )
    classes, labels = np.unique(split.identities, return_inverse=True)
    return labels.reshape(-1).astype(np.int32), classes.size


def hold_out(
    data: ReidData,
    *,
    identities: int,
    seed: int = 0,
    by: str = "identity",
    remove_same_camera: bool | None = None,
) -> ReidData:
    """Holds back real training identities as a validation set (section 4.1).

    Of each held-back (identity, camera) one image becomes a query and the others the
    gallery; a query is only taken while its identity keeps an image in the gallery.
    The paper holds back 100 of CityFlow's 333 identities and does not state which:
    ours are drawn from the seed. `by="scene"` holds back a group of identities that
    shares no camera with the rest, the one nearest to `identities` in size (95
    identities in CityFlow), so that validation shows unseen places.

    Args:
        data: a data set with training images; its query and gallery are replaced.
        identities: how many to hold back, at least 1 and fewer than there are.
        seed: draws the identities and the query images.
        by: "identity" or "scene".
        remove_same_camera: the validation's rule for gallery images of the query's
            own camera; None keeps the data set's.

    Returns:
        The same data set with the remaining training images and the new query and
        gallery. Synthetic images stay in training.

    Raises:
        ValueError: fewer identities than asked for; all cameras connected for
            "scene"; no held-back identity has a second image.

    Example:
        >>> from dex_jax.data import Protocol
        >>> pixels = np.zeros((4, 2, 2, 3), np.uint8)
        >>> train = ReidSplit(pixels, tuple("abcd"), np.array([1, 1, 2, 2]))
        >>> data = ReidData("toy", train, train.take([]), train.take([]),
        ...                 Protocol("toy"), "v1")
        >>> held = hold_out(data, identities=1)
        >>> len(held.train), len(held.query), len(held.gallery)
        (2, 1, 1)
    """
    check_count(identities, "identities")
    check_count(seed, "seed", least=0, most=None)
    check_choice(by, "by", ("identity", "scene"))
    train = data.train
    real = (train.domains == REAL) & (train.identities != UNKNOWN)
    known = np.unique(train.identities[real])
    if identities >= known.size:
        raise ValueError(
            f"identities: {identities} to hold back, but {data.name} trains on "
            f"{known.size} real ones and some must stay"
        )
    rng = np.random.default_rng((seed, 2))
    if by == "scene":
        held = _scene(train.take(real), identities)
    else:
        held = rng.choice(known, identities, replace=False)
    mine = np.flatnonzero(real & np.isin(train.identities, held))
    queries = _choose_queries(train, mine, rng)
    if not queries.size:
        raise ValueError(
            f"identities: none of the {len(held)} held-back identities of {data.name} "
            "has two images, so nothing can be asked"
        )
    rule = data.protocol.remove_same_camera
    rule = rule if remove_same_camera is None else remove_same_camera
    protocol = replace(
        data.protocol,
        name=f"{data.protocol.name} validation on {len(held)} held-back identities",
        remove_same_camera=rule,
        top=None,
        draws=1,
    )
    return replace(
        data,
        train=train.take(np.setdiff1d(np.arange(len(train)), mine)),
        query=train.take(queries),
        gallery=train.take(np.setdiff1d(mine, queries)),
        protocol=protocol,
        source=f"{data.source}-held-{by}-{identities}-{seed}",
    )


def mix(
    data: ReidData,
    *,
    synthetic: str = "balanced",
    synthetic_identities: int = 193,
    seed: int = 0,
) -> ReidData:
    """Chooses the synthetic training images (sections 4.1 and 4.3, Table 1).

    Args:
        data: a data set whose training images of another domain than "real" count as
            synthetic.
        synthetic: "real" takes none, "balanced" the images of some identities,
            "full" all.
        synthetic_identities: how many for "balanced"; the paper takes 193, which
            with its 233 real identities makes 426.
        seed: draws the identities for "balanced".

    Returns:
        The data set with fewer training images.

    Raises:
        ValueError: there are no synthetic images although some are asked for, or
            fewer synthetic identities than asked for.
    """
    check_choice(synthetic, "synthetic", ("real", "balanced", "full"))
    check_count(synthetic_identities, "synthetic_identities")
    check_count(seed, "seed", least=0, most=None)
    train = data.train
    real = train.domains == REAL
    if synthetic == "real":
        return data if real.all() else replace(data, train=train.take(real))
    known = np.unique(train.identities[~real])
    wanted = synthetic_identities if synthetic == "balanced" else 1
    if known.size < wanted:
        raise ValueError(
            f"synthetic: {synthetic!r} needs {wanted} synthetic identities, "
            f"{data.name} has {known.size}; add them or take synthetic='real'"
        )
    if synthetic == "full":
        return data
    chosen = np.random.default_rng((seed, 3)).choice(known, wanted, replace=False)
    return replace(
        data,
        train=train.take(real | np.isin(train.identities, chosen)),
        source=f"{data.source}-mixed-{wanted}-{seed}",
    )


def add_synthetic(data: ReidData, split: ReidSplit) -> ReidData:
    """Appends training images of another domain; their labels are made disjoint.

    Args:
        data: the real data set.
        split: images whose identities, cameras and tracklets are numbered without
            regard to `data`, and whose domain is not "real".

    Raises:
        ValueError: an image of `split` calls itself "real".
    """
    if np.any(split.domains == REAL):
        raise ValueError("split: synthetic images must name a domain other than 'real'")
    sides = (data.train, data.query, data.gallery)
    # A number that has a word stays with it, though no image may bear it.
    words = {"identities": data.identity_names, "cameras": data.camera_names}
    shift = [
        max(
            len(words.get(kind, ())),
            *(int(getattr(side, kind).max(initial=UNKNOWN)) + 1 for side in sides),
        )
        for kind in ("identities", "cameras", "tracklets")
    ]
    names = tuple(f"{d}/{n}" for d, n in zip(split.domains, split.names, strict=True))
    moved = ReidSplit(
        split.images,
        names,
        _shifted(split.identities, shift[0]),
        _shifted(split.cameras, shift[1]),
        _shifted(split.tracklets, shift[2]),
        split.domains,
    )
    return replace(data, train=concatenate([data.train, moved]))


def _shifted(labels: np.ndarray, by: int) -> np.ndarray:
    return np.where(labels == UNKNOWN, UNKNOWN, labels + by)


def _choose_queries(
    train: ReidSplit, mine: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    queries: list[int] = []
    for identity in np.unique(train.identities[mine]):
        images = mine[train.identities[mine] == identity]
        left = images.size
        for camera in np.unique(train.cameras[images]):
            if left > 1:
                queries.append(rng.choice(images[train.cameras[images] == camera]))
                left -= 1
    return np.sort(np.array(queries, np.int64))


def _scene(train: ReidSplit, wanted: int) -> np.ndarray:
    groups: list[tuple[set[int], set[int]]] = []  # identities and cameras of a scene
    for identity in np.unique(train.identities):
        cameras = set(train.cameras[train.identities == identity].tolist())
        joined = [g for g in groups if g[1] & cameras]
        groups = [g for g in groups if not g[1] & cameras]
        groups.append(
            (
                {int(identity)}.union(*(g[0] for g in joined)),
                cameras.union(*(g[1] for g in joined)),
            )
        )
    if len(groups) < 2:
        raise ValueError(
            "by: 'scene' needs identities that share no camera with the others; here "
            "every camera is connected to every other"
        )
    nearest = min(groups, key=lambda g: (abs(len(g[0]) - wanted), min(g[0])))
    return np.array(sorted(nearest[0]), np.int64)
