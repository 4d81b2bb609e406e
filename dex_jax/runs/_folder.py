"""A run's folder: its resolved config, its classes, and who may train in it.

A workdir holds `config.json` (the resolved config), `classes.json` (what it learns from
and which identity is which class), the checkpoints, and the CSV and TensorBoard
records. `train.py` fills it, `evaluate.py` reads it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dex_jax.runs._checkpoints import LAST
from dex_jax.runs._settings import Config

CONFIG, CLASSES = "config.json", "classes.json"


class RunError(RuntimeError):
    """A run cannot start or go on, through no fault of the program."""


def newest_run(root: str | Path = "runs") -> Path:
    """The run under `root` that was trained last.

    Raises:
        FileNotFoundError: there is none.
    """
    runs = [path.parent for path in Path(root).glob(f"*/{CONFIG}")]
    trained = [run for run in runs if any((run / LAST).glob("[0-9]*"))]
    if not trained:
        raise FileNotFoundError(
            f"no trained run under {root}/: train one first, for example with "
            "`python train.py --config configs/demo.py`, or give --workdir"
        )
    return max(trained, key=lambda run: (run / LAST).stat().st_mtime)


def save_config(workdir: str | Path, config: Config) -> None:
    """Writes the resolved config into the run's folder, if `check_config` agrees."""
    check_config(workdir, config)
    _write_json(Path(workdir) / CONFIG, json.loads(config.to_json()))


def check_config(workdir: str | Path, config: Config) -> None:
    """Refuses the folder of a run of another config.

    Fields under `config.run` say how a run is carried out and may differ.

    Raises:
        ValueError: some field differs; names each.
    """
    fresh = json.loads(config.to_json())
    if (Path(workdir) / CONFIG).exists():
        stored = json.loads(load_config(workdir).to_json())
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
    return ConfigDict(_tuples(read_json(Path(workdir) / CONFIG)))


def save_classes(workdir: str | Path, source: str, identities: list[int]) -> None:
    """Writes which identity is which class, or checks it against what is there.

    Raises:
        ValueError: the run has learned from other images or identities.
    """
    path = Path(workdir) / CLASSES
    fresh = {
        "source": source,
        "num_classes": len(identities),
        "identities": identities,
    }
    if path.exists():
        stored = read_json(path)
        for name in fresh:
            if stored.get(name) != fresh[name]:
                raise ValueError(
                    f"{workdir}: its run has learned from other data ({name} was "
                    f"{_short(stored.get(name))}, is {_short(fresh[name])})"
                )
    _write_json(path, fresh)


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Keeps a second process from training in the same folder.

    Raises:
        RunError: another process holds it.
    """
    Path(workdir).mkdir(parents=True, exist_ok=True)
    with (Path(workdir) / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{workdir}: another process is training in this folder"
            ) from None
        yield


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} is not the folder of a run: it has no {path.name}"
        )
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(draft, path)


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
