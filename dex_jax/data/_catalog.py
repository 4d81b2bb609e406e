"""The data sets by name."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dex_jax._checks import check_choice
from dex_jax.data._manifest import load_manifest
from dex_jax.data._records import UNKNOWN, ReidData

LOADERS: dict[str, Callable[..., ReidData]] = {
    "manifest": load_manifest,
}
NAMES = ("procedural_vehicles", *LOADERS)


def load(
    name: str,
    *,
    root: str | Path | None = None,
    data_dir: str | Path | None = None,
    allow_overlap: bool = False,
    **options: object,
) -> ReidData:
    """Loads a data set by name.

    Args:
        name: one of `NAMES`; "procedural_vehicles" is drawn by the package itself,
            "manifest" is one's own table of images.
        root: where the set lies on this machine: its folder, or the manifest's file.
        data_dir: where the embedded set is built, once.
        allow_overlap: accept training identities among the queries or the gallery.
        **options: the loader's own, such as `size="demo"`.

    Returns:
        The data set, with its protocol.

    Raises:
        FileNotFoundError: it is not at `root`; the message says how to obtain it.
        ValueError: an unknown name or option, broken files (all of them listed), or
            training identities among the queries or the gallery.
    """
    check_choice(name, "name", NAMES)
    if name == "procedural_vehicles":
        data = _load_procedural(root, data_dir, options)
    elif data_dir is not None:
        raise ValueError(f"data_dir: {name} is read from root, got {data_dir}")
    elif root is None:
        raise ValueError(
            f"root: {name} lies on your disk, say where; 'procedural_vehicles' is the "
            "set that needs nothing"
        )
    else:
        _check_options(name, LOADERS[name], options)
        data = LOADERS[name](root, **options)
    if not allow_overlap:
        _check_overlap(data)
    return data


def _load_procedural(
    root: str | Path | None, data_dir: str | Path | None, options: dict[str, object]
) -> ReidData:
    from dex_jax.data._procedural import load_procedural  # a renderer: only on use

    if root is not None:
        raise ValueError(
            f"root: procedural_vehicles is drawn, not read, got {root}; data_dir says "
            "where it is kept"
        )
    _check_options("procedural_vehicles", load_procedural, options)
    return load_procedural(data_dir=data_dir, **options)


def _check_options(
    name: str, loader: Callable[..., ReidData], options: dict[str, object]
) -> None:
    parameters = inspect.signature(loader).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{option}: {name} has no such option; it has {', '.join(known)}"
            )


def _check_overlap(data: ReidData) -> None:
    known = np.unique(data.train.identities)
    for side, split in (("query", data.query), ("gallery", data.gallery)):
        shared = np.intersect1d(known[known != UNKNOWN], split.identities)
        if shared.size:
            number = int(shared[0])
            names = data.identity_names
            raise ValueError(
                f"{data.name}: {shared.size} identities are both in train and in "
                f"{side}, first {names[number] if names else number!r}: the score "
                "would be flattered; correct the splits or pass allow_overlap"
            )
