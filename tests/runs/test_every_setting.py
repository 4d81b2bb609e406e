"""Every field of `configs/common.py` is changed, and something must change with it.

A setting that reaches nothing would train another model than the one that was asked
for, in silence. What a changed field must be seen in is a view: the compiled step as
text, the first weights, the images of the first batch, what a loader is asked for.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from dex_jax import data, models, runs, training
from dex_jax.runs import _build, _job
from tests.data import fake_sets

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*instead of"),
    pytest.mark.usefixtures("quick_programs"),
]


class Change(NamedTuple):
    """A field's other value, where it is seen, and what it needs beside it."""

    value: Any
    view: str
    beside: Mapping[str, Any] = MappingProxyType({})


CIRCLE, ARCFACE = {"loss.circle_weight": 1.0}, {"loss.arcface": True}
SYNTHETIC = {"data.mixing": "balanced", "data.synthetic_root": "SYNTHETIC"}
CHANGES: dict[str, Change | str] = {
    "name": "names the folder of a run, tests/test_train.py",
    "seed": Change(1, "weights"),
    "epochs": Change(3, "steps"),
    "image_size": Change(48, "batch"),
    "data.name": Change("market1501", "asked"),
    "data.root": Change("elsewhere", "asked"),
    "data.data_dir": Change("cache", "asked"),
    "data.size": Change("tiny", "asked"),
    "data.options": Change({"verify": True}, "asked"),
    "data.on_bad_image": Change("skip", "asked"),
    "data.hold_out": Change(3, "held"),
    "data.hold_out_seed": Change(4, "held"),
    "data.hold_out_by": Change("scene", "held"),
    "data.remove_same_camera": Change(True, "held"),
    "data.expected_identities": Change(77, "estimate", {"data.root": "elsewhere"}),
    "data.mixing": Change("full", "held", {"data.synthetic_root": "SYNTHETIC"}),
    "data.synthetic_root": Change("SYNTHETIC", "asked"),
    "data.synthetic_identities": Change(1, "held", SYNTHETIC),
    "batch.ids_per_batch": Change(2, "batch", {"batch.images_per_id": 4}),
    "batch.images_per_id": Change(4, "batch"),
    "augment.flip": Change(0.25, "program"),
    "augment.contrast": Change(0.2, "program"),
    "augment.brightness": Change(0.2, "program"),
    "augment.erase": Change(0.25, "program"),
    "model.name": Change("resnet50", "shapes", {"model.options": {}}),
    "model.parts": Change(((2, 1, 1),), "shapes"),
    "model.expected_parts": Change(5, "shapes"),
    "model.trunk_split": Change("stage4", "shapes"),
    "model.dim": Change(3, "shapes"),
    "model.last_stride": Change(2, "program", {"image_size": 64}),
    "model.pooling": Change("gem", "shapes"),
    "model.dtype": Change("bfloat16", "program"),
    "model.pretrained": Change("WEIGHTS", "weights"),
    "model.options": Change({"width": 3}, "shapes"),
    "loss.epsilon": Change(0.2, "program"),
    "loss.margin": Change(0.7, "program"),
    "loss.soft_margin": Change(True, "program"),
    "loss.cross_entropy_weight": Change(1.5, "program"),
    "loss.triplet_weight": Change(1.5, "program"),
    "loss.circle_weight": Change(0.5, "program"),
    "loss.circle_margin": Change(0.4, "program", CIRCLE),
    "loss.circle_scale": Change(64.0, "program", CIRCLE),
    "loss.arcface": Change(True, "program"),
    "loss.angular_margin": Change(0.4, "program", ARCFACE),
    "loss.angular_scale": Change(20.0, "program", ARCFACE),
    "optimizer.name": Change("adamw", "program", {"optimizer.weight_decay": 0.0}),
    "optimizer.learning_rate": Change(1e-3, "program"),
    "optimizer.schedule": Change("cosine", "program"),
    "optimizer.decay": Change(0.02, "program"),
    "optimizer.warmup_epochs": Change(1.0, "program"),
    "optimizer.weight_decay": Change(0.1, "program", {"optimizer.name": "adamw"}),
    "optimizer.clip_norm": Change(1.0, "program"),
    "optimizer.accumulate": Change(2, "program"),
    "optimizer.average": Change(0.9, "program"),
    "evaluation.batch_size": "of descriptions, tests/runs/test_stored_run.py",
    "evaluation.split": Change("test", "scored"),
    "evaluation.every_epochs": Change(2, "due"),
    "evaluation.scales": "of descriptions, tests/evaluation/test_sources.py",
    "run.checkpoint_minutes": "of the loop in train.py, tests/test_train.py",
    "run.log_steps": Change(2, "rows"),
    "run.workers": Change(3, "reading"),
    "run.shard_parameters": Change(True, "placing"),
    "run.remat": Change(True, "program"),
    "run.validate": Change(False, "due"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Data sets and weights of this module."""
    folder = tmp_path_factory.mktemp("settings")
    weights = folder / "weights.safetensors"
    given = models.backbone("resnet_slim", width=2, last_stride=1, rngs=7)
    models.save_torch_weights(given, weights)
    return {
        "REAL": str(fake_sets.cityflow(folder)),
        "SYNTHETIC": str(fake_sets.simulation(folder)),
        "WEIGHTS": str(weights),
    }


def make_config(places: dict[str, str], changes: Mapping[str, Any]) -> Any:
    config: Any = common.get_config()
    base: dict[str, Any] = {
        "epochs": 4,
        "image_size": 32,
        "data.root": "REAL",
        "data.hold_out": 2,
        "data.mixing": "real",
        "batch.ids_per_batch": 4,
        "batch.images_per_id": 2,
        "model.name": "resnet_slim",
        "model.trunk_split": "none",
        "model.options": {"width": 2},
        "model.parts": ((1, 1, 2),),
        "model.expected_parts": 0,
        "model.dim": 2,
        "evaluation.every_epochs": 3,
        "run.log_steps": 3,
    }
    for name, value in (base | dict(changes)).items():
        section, _, field = name.rpartition(".")
        holder = config[section] if section else config
        known = isinstance(value, str) and value in places
        holder[field] = places[value] if known else value
    runs.check_settings(config)
    return config


def digest(tree: Any) -> str:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()


class Views:
    """What is built of a config, looked at from one side each."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self.folder = folder
        self.patch = patch

    def caught(self, module: Any, name: str, work: Callable[[], Any]) -> Any:
        """The arguments that a function is called with by some work."""
        calls = []

        def catch(*args: Any, **options: Any):
            calls.append((args[:1] if isinstance(args[0], str) else (), options))
            raise InterruptedError

        with self.patch.context() as patch:
            patch.setattr(module, name, catch)
            with pytest.raises(InterruptedError):
                work()
        return calls

    def job(self, config: Any) -> runs.Job:
        return runs.build_job(
            config, self.folder / str(len(list(self.folder.iterdir())))
        )

    def asked(self, config: Any) -> Any:
        return self.caught(data, "load", lambda: runs.load_data(config))

    def held(self, config: Any) -> Any:
        try:
            found = runs.load_data(config)
        except ValueError as error:
            return str(error)
        return found.query.names, found.train.names, found.protocol

    def scored(self, config: Any) -> Any:
        found, split = runs.load_scored_data(config)
        return found.query.names, split

    def estimate(self, config: Any) -> Any:
        free = training.Cost(operations=1e9, memory=1e9, rate=1e9)
        with self.patch.context() as patch:
            patch.setattr(training, "cost", lambda *_, **__: free)
            return runs.estimate(config)

    def weights(self, config: Any) -> Any:
        network, _, _ = runs.build_training(config, num_classes=4, steps_per_epoch=2)
        return digest(network.params)

    def shapes(self, config: Any) -> Any:
        try:
            network, _, _ = runs.build_training(
                config, num_classes=4, steps_per_epoch=2, shapes=True
            )
        except ValueError as error:
            return str(error)
        return str(jax.tree.map(jnp.shape, network.params)), network.parts

    def program(self, config: Any) -> Any:
        network, transform, schedule = runs.build_training(
            config, num_classes=4, steps_per_epoch=2, shapes=True
        )
        step = _build.build_step(config, network, transform, schedule)
        state = training.init_state(
            network, transform, average=config.optimizer.average
        )
        side = config.image_size
        images = jax.ShapeDtypeStruct((8, side, side, 3), jnp.uint8)
        labels = jax.ShapeDtypeStruct((8,), jnp.int32)
        return jax.jit(step).lower(state, images, labels).as_text()

    def batch(self, config: Any) -> Any:
        job = self.job(config)
        images = job.images(0)
        first = list(itertools.islice(images, 2))
        images.close()
        return [(b.images.shape, digest([b.images, b.labels])) for b in first]

    def steps(self, config: Any) -> Any:
        return self.job(config).steps

    def due(self, config: Any) -> Any:
        job = self.job(config)
        return [step for step in range(1, job.steps + 1) if job.validation_due(step)]

    def rows(self, config: Any) -> Any:
        job = self.job(config)
        journal = runs.Journal(job.workdir, steps=job.steps, start=0, batch_size=8)
        ones = {"loss": 1.0, "gradient_norm": 1.0, "part_loss": np.ones(4)}
        figures: Any = jax.tree.map(jnp.asarray, ones)
        images = job.images(0)
        batch = next(images)
        images.close()
        for step in range(1, 5):
            runs.record_step(journal, job, step, figures, batch)
        journal.close()
        lines = (job.workdir / "metrics.csv").read_text().splitlines()
        return [line.split(",")[0] for line in lines]

    def reading(self, config: Any) -> Any:
        job = self.job(config)
        found = self.caught(_job, "train_batches", lambda: next(job.images(0)))
        return found[0][1]["workers"]

    def placing(self, config: Any) -> Any:
        found = self.caught(training, "state_shardings", lambda: self.job(config))
        return found[0][1]


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Views:
    return Views(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """Views of unchanged configs, which several settings are compared with."""
    return {}


def test_every_field_is_in_the_table():
    found = runs.setting_names(common.get_config())
    sections = {"data.options", "model.options"}  # empty, so without fields of theirs
    assert {n.removeprefix("config.") for n in found} | sections == set(CHANGES)


@pytest.mark.parametrize(
    "name", [name for name, change in CHANGES.items() if not isinstance(change, str)]
)
def test_a_changed_setting_is_seen(places, views, seen, name):
    change = CHANGES[name]
    assert not isinstance(change, str)
    look, key = getattr(views, change.view), f"{change.view} {change.beside}"
    if key not in seen:
        seen[key] = look(make_config(places, change.beside))
        # The same config gives the same view, so that a difference is the setting's.
        assert look(make_config(places, change.beside)) == seen[key]
    changed = look(make_config(places, {**change.beside, name: change.value}))
    assert changed != seen[key]
