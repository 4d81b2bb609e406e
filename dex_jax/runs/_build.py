"""From a config to its data set, its network and its training step."""

import os
from dataclasses import replace
from pathlib import Path

import jax
import optax

from dex_jax import data, models, training
from dex_jax._checks import plain_text
from dex_jax.runs._settings import Config

SPLITS = ("validation", "test")


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
    if split not in SPLITS:
        raise ValueError(f"split: expected 'validation' or 'test', got {split!r}")
    return _choose(_read_data(config, on_bad_image), config, split)


def load_training_data(
    config: Config,
) -> tuple[data.ReidData, dict[str, data.Protocol]]:
    """What a training learns from and is watched by, and how each split is scored.

    Returns:
        The data set of `load_data` with the validation, and a protocol by split.
    """
    full = _read_data(config, None)
    splits = {split: _choose(full, config, split) for split in SPLITS}
    return splits["validation"], {
        name: split.protocol for name, split in splits.items()
    }


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
    options = dict(section.options)
    if twice := options.keys() & {*given, "name"}:
        raise ValueError(
            f"config.data.options: {min(twice)!r} is a field of config.data itself"
        )
    try:
        full = data.load(section.name, **given, **options)
    except TypeError as error:
        raise ValueError(f"config.data.options: {options!r}: {error}") from error
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
    train = full.train
    if section.hold_out:
        held = data.hold_out(
            full,
            identities=section.hold_out,
            seed=section.hold_out_seed,
            by=section.hold_out_by,
            remove_same_camera=section.remove_same_camera or None,
        )
        if split == "validation":
            return held
        full, train = replace(full, source=held.source), held.train
    protocol = full.protocol
    if section.remove_same_camera and not protocol.remove_same_camera:
        # The config's rule holds wherever its runs are scored, and says so.
        name = f"{protocol.name}, changed by the config"
        protocol = replace(protocol, name=name, remove_same_camera=True)
    return replace(full, train=train, protocol=protocol)


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
        print(plain_text(str(report), lines=True))
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


def build_step(
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
