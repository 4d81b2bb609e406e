"""How a run is scored: fixed when it begins, and read by whatever scores it later."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dex_jax import data
from dex_jax._checks import read_json
from dex_jax.runs._folder import write_json
from dex_jax.runs._settings import Config

PROTOCOLS = "protocols.json"
_UNKNOWN = -1


def save_protocols(workdir: str | Path, protocols: Mapping[str, data.Protocol]) -> None:
    """Writes the protocol of each split into the run's folder."""
    content = {split: asdict(protocol) for split, protocol in protocols.items()}
    write_json(Path(workdir) / PROTOCOLS, content)


def load_protocols(workdir: str | Path) -> dict[str, data.Protocol]:
    """Reads the protocols of a run, by split; none of runs of older versions.

    Raises:
        ValueError: the file is not what `save_protocols` writes.
    """
    path = Path(workdir) / PROTOCOLS
    if not os.path.lexists(path):
        return {}
    return {
        split: _protocol(f"{path}: {split}", fields)
        for split, fields in read_json(path, "list of a run's protocols").items()
    }


def _protocol(place: str, fields: Any) -> data.Protocol:
    if not isinstance(fields, dict):
        raise ValueError(f"{place}: expected an object, got {fields!r:.80}")
    try:
        return data.Protocol(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def check_scorable(reid: data.ReidData, config: Config) -> None:
    """Sees to it before the first step that some query can be scored.

    Args:
        reid: the data set; its query and gallery are the validation set.
        config: of the run; whether it is validated at all.

    Raises:
        ValueError: no query has a positive under the protocol; names the setting that
            mends it.
    """
    if not config.run.get("validate", True):
        return
    remove = reid.protocol.remove_same_camera
    if _any_positive(reid, remove_same_camera=remove):
        return
    section = config.data
    known = int((reid.query.identities != _UNKNOWN).sum())
    if remove and _any_positive(reid, remove_same_camera=False):
        fault = "all images of a query's identity are of the query's own camera"
        if section.remove_same_camera:
            mend = "keep them with --config.data.remove_same_camera=False"
        elif section.options.get("remove_same_camera"):
            mend = "keep them without remove_same_camera in config.data.options"
        else:
            mend = "hold other identities back with --config.data.hold_out_seed=N"
    else:
        fault = f"none of {known} queries has another image in the gallery"
        if not known:
            fault = f"none of {len(reid.query)} query images has a known identity"
        if not len(reid.query):
            fault = "there are no query images"
        mend = "hold other identities back with --config.data.hold_out_seed=N"
        if not section.hold_out:
            count = len(np.unique(reid.train.identities))
            fault += ", and config.data.hold_out=0 holds nothing back"
            mend = (
                f"hold some of the {count} training identities back with "
                "--config.data.hold_out=N"
            )
    raise ValueError(
        f"{reid.name}: nothing can be validated by {reid.protocol.describe()}: "
        f"{fault}; {mend}, or train without validation: --config.run.validate=False"
    )


def _any_positive(reid: data.ReidData, *, remove_same_camera: bool) -> bool:
    query, gallery = (
        np.unique(np.stack([side.identities, side.cameras], axis=1), axis=0)
        for side in (reid.query, reid.gallery)
    )  # [*, 2]
    for identity, camera in query[query[:, 0] != _UNKNOWN]:
        cameras = gallery[gallery[:, 0] == identity, 1]
        if remove_same_camera and camera != _UNKNOWN:
            cameras = cameras[cameras != camera]
        if cameras.size:
            return True
    return False
