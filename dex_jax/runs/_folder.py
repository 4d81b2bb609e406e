"""A run's folder: its resolved config, its classes, and who may train in it.

A workdir holds `config.json` (the resolved config), `classes.json` (what it learns from
and which identity is which class), `protocols.json` (how it is scored), the
checkpoints, and the CSV and TensorBoard records. `train.py` fills it, `evaluate.py`
reads it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dex_jax._checks import check_file, read_json, warn_user, whole_file
from dex_jax.data import ReidSplit
from dex_jax.runs._checkpoints import LAST, saved_steps
from dex_jax.runs._settings import Config

CONFIG, CLASSES = "config.json", "classes.json"
_WHAT = {CONFIG: "config of a run", CLASSES: "list of a run's classes"}


class RunError(RuntimeError):
    """A run cannot start or go on, through no fault of the program."""


def newest_run(root: str | Path = "runs") -> Path:
    """The run under `root` that was trained last.

    Raises:
        FileNotFoundError: there is none.
    """
    runs = [path.parent for path in Path(root).glob(f"*/{CONFIG}")]
    trained = [run for run in runs if saved_steps(run / LAST)]
    if not trained:
        raise FileNotFoundError(
            f"no trained run under {root}/: train one first, for example with "
            "`python train.py --config configs/demo.py`, or give --workdir"
        )
    return max(trained, key=lambda run: (run / LAST).stat().st_mtime)


def save_config(workdir: str | Path, config: Config) -> None:
    """Writes the resolved config into the run's folder, if `check_config` agrees."""
    check_config(workdir, config)
    write_json(Path(workdir) / CONFIG, json.loads(config.to_json()))


def check_config(workdir: str | Path, config: Config) -> None:
    """Refuses the folder of a run of another config.

    Fields under `config.run` say how a run is carried out and may differ.

    Raises:
        ValueError: some field differs; names each.
    """
    fresh = json.loads(config.to_json())
    if os.path.lexists(Path(workdir) / CONFIG):
        stored = _read(workdir, CONFIG)
        differ = [
            f"  config.{name}: {old!r} there, {new!r} here"
            for name, old, new in _differences(stored, fresh)
            if not name.startswith("run.")
        ]
        if differ:
            raise ValueError(
                f"{workdir} belongs to a run of another config:\n"
                + "\n".join(differ)
                + "\nTake another --workdir, or the same settings."
            )


def load_config(workdir: str | Path) -> Config:
    """Reads a run's resolved config.

    Raises:
        FileNotFoundError: the folder is no run.
        ValueError: the file is not what `save_config` writes.
    """
    path = Path(workdir) / CONFIG
    stored = _read(workdir, CONFIG)
    try:
        return ConfigDict(_tuples(stored))
    except (TypeError, ValueError) as error:  # names that no field can have
        raise ValueError(f"{path}: is no {_WHAT[CONFIG]}: {error}") from None


def load_num_classes(workdir: str | Path) -> int:
    """Reads how many identities a run tells apart.

    Raises:
        FileNotFoundError: the folder is no run.
        ValueError: the file is not what `save_classes` writes.
    """
    number = _read(workdir, CLASSES).get("num_classes")
    if type(number) is not int or not 1 <= number < 2**31:
        raise ValueError(
            f"{workdir}: {CLASSES} does not say num_classes, a number of identities, "
            f"but {_short(number)}"
        )
    return number


def save_classes(workdir: str | Path, source: str, train: ReidSplit) -> None:
    """Writes which identity is which class, or checks it against what is there.

    Args:
        workdir: the run's folder.
        source: what identifies the data set, with all of its files.
        train: the images that are learned from.

    Raises:
        ValueError: the run has learned from other images or identities.

    Warns:
        UserWarning: some file of the data set has changed since the run began, as when
            a damaged picture of the validation is mended.
    """
    path = Path(workdir) / CLASSES
    identities = np.unique(train.identities).tolist()
    labels = zip(train.names, train.identities.tolist(), strict=True)
    fresh = {
        "source": source,
        "num_classes": len(identities),
        "identities": identities,
        "images": hashlib.sha256(repr(list(labels)).encode()).hexdigest(),
    }
    if os.path.lexists(path):
        stored = _read(workdir, CLASSES)
        # Runs of older versions do not know their images.
        stored.setdefault("images", fresh["images"])
        for name in ("num_classes", "identities", "images"):
            if stored.get(name) != fresh[name]:
                raise ValueError(
                    f"{workdir}: its run has learned from other data ({name} was "
                    f"{_short(stored.get(name))}, is {_short(fresh[name])})"
                )
        if stored.get("source") != source:
            warn_user(
                f"{workdir}: files of the data set have changed since its run began "
                f"(it was {_short(stored.get('source'))}, is {source!r})"
            )
    write_json(path, fresh)


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Keeps a second process from training in the same folder.

    Raises:
        RunError: another process holds it.
    """
    Path(workdir).mkdir(parents=True, exist_ok=True)
    path = Path(workdir) / ".lock"
    if os.path.lexists(path):
        check_file(path, "lock of a run")
    # Not cut to nothing: a link may lead to somebody's file.
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{workdir}: another process is training in this folder"
            ) from None
        yield


def _read(workdir: str | Path, name: str) -> dict[str, Any]:
    path = Path(workdir) / name
    if not os.path.lexists(path):
        raise FileNotFoundError(
            f"{path.parent} is not the folder of a run: it has no {path.name}"
        )
    return read_json(path, _WHAT[name])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object so that the file is always whole."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _tuples(value: Any) -> Any:
    """JSON has lists alone; configs have tuples."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield prefix.rstrip("."), old, new


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
