"""A training of a few hundred numbers, for tests that need a whole run."""

import csv
from pathlib import Path
from typing import Any

from configs import demo
from tests.data import fake_sets


def small_config(folder: Path) -> Any:
    """Three of CityFlow's six fake vehicles: eight steps, validated after four."""
    config: Any = demo.get_config()
    config.image_size = 32
    config.epochs = 4
    config.data.update(name="cityflow", size="", hold_out=3, mixing="real")
    config.data.root = str(fake_sets.cityflow(folder))
    config.data.remove_same_camera = False
    config.batch.update(ids_per_batch=2, images_per_id=4)
    config.model.update(dim=2, parts=((1, 1, 2),), expected_parts=0)
    config.model.options = {"width": 2}
    config.evaluation.every_epochs = 2
    config.evaluation.scales = (1.0,)
    config.run.log_steps = 1
    return config


def figures(workdir: Path, name: str) -> list[dict[str, str]]:
    """The rows of a journal without those columns that depend on the clock."""
    with (workdir / name).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    timed = {"images_per_second", "data_wait"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]
