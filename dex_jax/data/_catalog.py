"""The data sets by name."""

import ast
import inspect
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax._checks import check_choice
from dex_jax.data._built import load_built
from dex_jax.data._cityflow import load_cityflow
from dex_jax.data._hold_out import add_synthetic
from dex_jax.data._manifest import load_manifest
from dex_jax.data._market import load_dukemtmc, load_market1501
from dex_jax.data._msmt17 import load_msmt17
from dex_jax.data._records import UNKNOWN, ReidData
from dex_jax.data._vehicleid import load_vehicleid
from dex_jax.data._vehiclex import load_vehiclex
from dex_jax.data._veri import load_veri776
from dex_jax.data._veriwild import load_veriwild
from dex_jax.data._vric import load_vric

PROCEDURAL = "procedural_vehicles"
# The sets that lie on the user's disk.
LOADERS: dict[str, Callable[..., ReidData]] = {
    "manifest": load_manifest,
    "cityflow": load_cityflow,
    "vehiclex": load_vehiclex,
    "veri776": load_veri776,
    "vehicleid": load_vehicleid,
    "veriwild": load_veriwild,
    "vric": load_vric,
    "market1501": load_market1501,
    "dukemtmc": load_dukemtmc,
    "msmt17": load_msmt17,
}
NAMES = (PROCEDURAL, *LOADERS)
SHARED_OPTIONS = ("on_bad_image", "verify")


def load(
    name: str,
    *,
    root: str | Path | None = None,
    data_dir: str | Path | None = None,
    synthetic_root: str | Path | None = None,
    allow_overlap: bool = False,
    **options: object,
) -> ReidData:
    """Loads a data set by name.

    The names are procedural_vehicles (drawn by the package itself), manifest (one's
    own table of images), cityflow, vehiclex (the AI City simulation set), veri776,
    vehicleid, veriwild, vric, market1501, dukemtmc and msmt17.

    Args:
        name: one of these.
        root: where the set lies on this machine: its folder, or the manifest's file.
        data_dir: where the set is built once into ArrayRecord files and read from
            thereafter; `root` may then be gone. None reads the files at `root` each
            time (and keeps the embedded set in its default place).
        synthetic_root: a simulation set (see vehiclex) whose images are added to the
            training images; `mix` chooses among them.
        allow_overlap: accept training identities among the queries or the gallery.
        **options: the loader's own, such as `size="demo"`, and two that all sets read
            from `root` have. `on_bad_image` is "error" (default: absent and empty
            files are listed in one error), "skip" (every image is decoded once, bad
            ones are left out and counted in `data.notes`) or "later" (labels are read
            without looking at the images; one that is absent is an error when its turn
            comes, and `data.source` identifies the labels alone; without effect where
            `data_dir` is given). `verify` is False (default) or True: every image is
            decoded once, so that the error lists all bad ones. Without it an image
            that cannot be decoded is an error when its turn comes.

    Returns:
        The data set, with its protocol.

    Raises:
        FileNotFoundError: it is not at `root`; the message says how to obtain it.
        ModuleNotFoundError: a package that `data_dir` needs is not installed.
        ValueError: an unknown name or option, an option out of its range, training
            identities among the queries or the gallery, a store under `data_dir` that
            is damaged or cannot be written, or broken files: all that is wrong with
            them, the first 20 faults with file and line, in one message.

    Warns:
        UserWarning: what was repaired or left out on reading, and counts that differ
            from the published ones; `data.notes` keeps them.

    Example:
        >>> data = load("procedural_vehicles", size="tiny", in_memory=True,
        ...             progress=False)
        >>> data.protocol.describe()
        'procedural_vehicles: same-camera images kept, mAP@100 over all positives'
    """
    check_choice(name, "name", NAMES)
    if name == PROCEDURAL:
        data = _load_procedural(root, data_dir, options)
    else:
        data = _load_from_disk(name, root, data_dir, options)
    if synthetic_root is not None:
        shared = {key: options[key] for key in SHARED_OPTIONS if key in options}
        synthetic = _load_from_disk("vehiclex", synthetic_root, data_dir, shared)
        data = replace(
            add_synthetic(data, synthetic.train),
            source=f"{data.source}+{synthetic.source}",
            notes=data.notes + tuple(f"synthetic: {n}" for n in synthetic.notes),
        )
    if data.notes:
        warnings.warn(f"{name}: {'; '.join(data.notes)}", stacklevel=2)
    if not allow_overlap:
        _check_overlap(data, name if root is None else f"{name} {root}")
    return data


def read_options(
    words: Sequence[str], *, flags: Collection[str] = ()
) -> dict[str, Any]:
    """Reads options of a loader as a command line has them.

    Args:
        words: such as `["size=large", "draw=3"]`.
        flags: names that the command line has flags for, which are refused here.

    Raises:
        ValueError: a word of another form, or a name in `flags`.

    Example:
        >>> read_options(["size=large", "draw=3"])
        {'size': 'large', 'draw': 3}
    """
    options: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise ValueError(f"--option: expected KEY=VALUE, got {word!r}")
        if key in flags:
            raise ValueError(f"--option: {key} is a flag of its own, --{key}")
        try:
            options[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[key] = value  # a plain word
    return options


def _load_procedural(
    root: str | Path | None, data_dir: str | Path | None, options: dict[str, object]
) -> ReidData:
    from dex_jax.data._procedural import load_procedural  # a renderer: only on use

    if root is not None:
        raise ValueError(
            f"root: {PROCEDURAL} is drawn, not read, got {root}; data_dir says where "
            "it is kept"
        )
    loader: Callable[..., ReidData] = load_procedural
    _check_options(PROCEDURAL, loader, options)
    return loader(data_dir=data_dir, **options)


def _load_from_disk(
    name: str,
    root: str | Path | None,
    data_dir: str | Path | None,
    options: dict[str, object],
) -> ReidData:
    loader = LOADERS[name]
    _check_options(name, loader, options)
    if data_dir is not None:
        # A store is built of whole images, and read without looking for others.
        if options.get("on_bad_image") == "later":
            options = {k: v for k, v in options.items() if k != "on_bad_image"}
        return load_built(name, loader, root=root, data_dir=data_dir, options=options)
    if root is None:
        raise FileNotFoundError(
            f"root: {name} lies on your disk, say where (docs/data.md: how it is "
            f"obtained); {PROCEDURAL!r} is the set that needs nothing"
        )
    return loader(root, **options)


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


def _check_overlap(data: ReidData, called: str) -> None:
    known = np.unique(data.train.identities)
    for side, split in (("query", data.query), ("gallery", data.gallery)):
        shared = np.intersect1d(known[known != UNKNOWN], split.identities)
        if shared.size:
            number = int(shared[0])
            names = data.identity_names
            raise ValueError(
                f"{called}: {shared.size} identities are both in train and in "
                f"{side}, first {names[number] if names else number!r}: the score "
                "would be flattered; correct the splits or pass allow_overlap"
            )
