"""A run and its folder: the one room of the library that knows what a config says.

A workdir holds `config.json` (the resolved config), `classes.json` (what it learns from
and which identity is which class), the checkpoints, and the CSV and TensorBoard
records. `train.py` fills it, `evaluate.py` reads it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from dex_jax import data, models, training
from dex_jax._settings import Config
from dex_jax._settings import setting_names as setting_names
from dex_jax._settings import validate as validate
from dex_jax.checkpoints import LAST, Checkpoints, checksum

CONFIG, CLASSES = "config.json", "classes.json"


class RunError(RuntimeError):
    """A run cannot start or go on, through no fault of the program."""


@dataclass(frozen=True)
class Run:
    """A trained network, ready to describe images.

    Attributes:
        workdir: the run's folder.
        config: its resolved config.
        step: updates that its weights have seen.
        apply: normalised images `[B, S, S, 3]` float32 -> descriptors `[B, P * D]`
            float32, unit length; a pytree that holds the weights.
        fingerprint: changes with the weights and with the structure.
    """

    workdir: Path
    config: Config
    step: int
    apply: Callable[[jax.Array], jax.Array]
    fingerprint: str


def keep_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that the next start need not compile.

    Leaves alone what the user has set (`JAX_COMPILATION_CACHE_DIR`).
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "dex_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def load_data(
    config: Config, *, split: str = "validation", on_bad_image: str | None = None
) -> data.ReidData:
    """The data set of a config, as its training and its evaluation see it.

    Args:
        config: of the run.
        split: "validation": query and gallery are the training identities held back
            (or the set's own, where none are); "test": the set's own.
        on_bad_image: "error" or "skip" in place of the config's.

    Returns:
        The data set; its training split is without the identities held back.

    Raises:
        ValueError: another split, or what the data set itself refuses.
        FileNotFoundError: the data set is not there; says how to get it.
    """
    if split not in ("validation", "test"):
        raise ValueError(f"split: expected 'validation' or 'test', got {split!r}")
    return _choose(_read_data(config, on_bad_image), config, split)


def load_scored_data(
    config: Config, *, on_bad_image: str | None = None
) -> tuple[data.ReidData, str]:
    """What a run is judged by: the split that its config names.

    "auto" is the set's own test where its queries have identities, else the validation.

    Returns:
        The data set of `load_data`, and which split it is.
    """
    full = _read_data(config, on_bad_image)
    split = config.evaluation.split
    if split == "auto":
        split = "test" if (full.query.identities >= 0).any() else "validation"
    return _choose(full, config, split), split


def _read_data(config: Config, on_bad_image: str | None) -> data.ReidData:
    section = config.data
    names = ("root", "data_dir", "size", "synthetic_root")
    given = {name: section[name] for name in names if section[name]}
    if (on_bad_image or section.on_bad_image) == "skip":
        given["on_bad_image"] = "skip"
    full = data.load(section.name, **given, **section.options)
    if section.name == "cityflow" or section.synthetic_root:
        full = data.mix(
            full,
            synthetic=section.mixing,
            synthetic_identities=section.synthetic_identities,
            seed=section.hold_out_seed,
        )
    return full


def _choose(full: data.ReidData, config: Config, split: str) -> data.ReidData:
    section = config.data
    if not section.hold_out:
        return full
    held = data.hold_out(
        full,
        identities=section.hold_out,
        seed=section.hold_out_seed,
        by=section.hold_out_by,
        remove_same_camera=section.remove_same_camera or None,
    )
    if split == "validation":
        return held
    return replace(held, query=full.query, gallery=full.gallery, protocol=full.protocol)


def build_training(
    config: Config, *, num_classes: int, steps_per_epoch: int, shapes: bool = False
) -> tuple[training.Network, optax.GradientTransformation, optax.Schedule]:
    """The network, the optimizer and the learning rate that a config asks for.

    Args:
        config: of the run.
        num_classes: C, identities to classify.
        steps_per_epoch: updates in one epoch.
        shapes: leave the weights out: `jax.ShapeDtypeStruct` in their place.

    Raises:
        ValueError: a setting that one of them refuses, or another number of parts than
            `config.model.expected_parts`.
    """
    options = config.model.to_dict()
    options.pop("pretrained")
    network = training.build_network(
        num_classes=num_classes,
        seed=None if shapes else config.seed,
        classifier="cosine" if config.loss.arcface else "linear",
        remat=config.run.remat,
        **options.pop("options"),
        **options | {"expected_parts": options["expected_parts"] or None},
    )
    pretrained = None if shapes else pretrained_file(config)
    if pretrained:
        network, report = training.load_pretrained(network, pretrained)
        print(report)
    rates = config.optimizer.to_dict()
    schedule = training.learning_rate(
        **{k: rates[k] for k in ("learning_rate", "schedule", "decay")},
        warmup_epochs=rates["warmup_epochs"],
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
    )
    transform = training.optimizer(
        schedule, **{k: rates[k] for k in ("name", "weight_decay", "clip_norm")}
    )
    return network, transform, schedule


def pretrained_file(config: Config) -> Path | None:
    """The checkpoint that a config starts from, None for random weights.

    Raises:
        FileNotFoundError: it is not there, or the package that carries it is not.
    """
    wish = config.model.pretrained
    if not wish:
        return None
    if wish == "package":
        return models.packaged_checkpoint(config.model.name)
    if not Path(wish).is_file():
        raise FileNotFoundError(f"config.model.pretrained: no file {wish!r}")
    return Path(wish)


def train_step(
    config: Config,
    network: training.Network,
    transform: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> training.Step:
    """The training step that a config asks for, not yet compiled."""
    loss = config.loss.to_dict()
    if loss.pop("soft_margin"):
        loss["margin"] = None
    if not loss.pop("arcface"):
        loss["angular_margin"] = None
    return training.train_step(
        network,
        transform,
        schedule,
        seed=config.seed,
        augmentation=config.augment.to_dict(),
        loss=loss,
        accumulate=config.optimizer.accumulate,
        average=config.optimizer.average,
    )


def load_run(workdir: str | Path, *, which: str = "best") -> Run:
    """Reads a trained network.

    Args:
        workdir: the run's folder.
        which: "best" (by validation mAP; the newest state where no validation was
            made) or "last".

    Raises:
        FileNotFoundError: no run, or one without a checkpoint.
        ValueError: its config lacks settings, as that of an older version does.
        CheckpointError: there are checkpoints and none can be read.
    """
    config = load_config(workdir)
    try:
        validate(config)
    except ValueError as error:
        raise ValueError(f"{workdir}: {CONFIG} is of no use here:\n{error}") from None
    num_classes = _read_json(Path(workdir) / CLASSES).get("num_classes")
    if not isinstance(num_classes, int):
        raise ValueError(f"{workdir}: {CLASSES} does not say num_classes")
    network, transform, _ = build_training(
        config, num_classes=num_classes, steps_per_epoch=1, shapes=True
    )
    like = training.init_state(network, transform, average=config.optimizer.average)
    with Checkpoints(workdir) as kept:
        found = kept.restore(like, which=which)
        if found is None and which == "best":
            found = kept.restore(like)
    if found is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: train it first")
    step, state, _ = found
    params = state.average if config.optimizer.average else state.params
    identity = {"model": config.model.to_dict(), "weights": checksum(params)}
    return Run(
        workdir=Path(workdir),
        config=config,
        step=step,
        apply=training.describer(network.graphdef)(params, state.stats),
        fingerprint=f"{json.dumps(identity, sort_keys=True)}{checksum(state.stats)}",
    )


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
    return ConfigDict(_tuples(_read_json(Path(workdir) / CONFIG)))


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
        stored = _read_json(path)
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


def _read_json(path: Path) -> dict[str, Any]:
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
