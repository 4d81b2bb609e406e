"""Every config of the paper, shrunk, through one real step of its training."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dex_jax import runs, training
from tests.models.golden_networks import QUICK_COMPILE

pytestmark = pytest.mark.xdist_group("paper_configs")

RESIDUAL = {"width": 4, "blocks": (1, 1, 2, 1)}
GROUPED = {"width": 16, "blocks": (1, 1, 2, 1)}
MOBILE = {"width": 0.25, "depth": 0.2}
CONFIGS: dict[str, dict[str, Any]] = {
    "resnet50": RESIDUAL,
    "resnet50_cbam": RESIDUAL,
    "resnet50_ibn": RESIDUAL,
    "resnet50_ibn_cbam": RESIDUAL,
    "se_resnext50": GROUPED,
    "efficientnet_b1": MOBILE,
    "efficientnet_b2": MOBILE,
    "efficientnet_b3": MOBILE,
}


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    """Compiled steps by their text: networks that differ in scale alone share one."""
    return {}


@pytest.mark.parametrize("name", CONFIGS)
def test_one_real_step(name: str, programs: dict[str, Any], rng: np.random.Generator):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.model.options.update(CONFIGS[name])
    # One branch of the three; all of them are built at full size elsewhere.
    config.model.update(parts=((2, 3, 1),), expected_parts=7, dim=4)
    network, transform, schedule = runs.build_training(
        config, num_classes=4, steps_per_epoch=2
    )
    state = training.init_state(network, transform)
    step = jax.jit(
        runs.build_step(config, network, transform, schedule),
        compiler_options=QUICK_COMPILE,
    )
    size = 3 * network.stride  # the smallest map that has three rows
    images = jnp.asarray(rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8))
    labels = jnp.array([0, 0, 1, 1])
    lowered = step.lower(state, images, labels)
    text = lowered.as_text()
    if text not in programs:
        programs[text] = lowered.compile()
    after, figures = programs[text](state, images, labels)
    assert int(after.step) == 1
    assert np.isfinite(figures["loss"]) and figures["gradient_norm"] > 0
    moved = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()),
        after.params,
        state.params,
    )
    still = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, has in jax.tree_util.tree_leaves_with_path(moved)
        if not has
    ]
    # A spatial gate that starts at scale 0 passes no gradient to its convolution.
    assert all("cbam/conv" in each for each in still), still


@pytest.mark.parametrize("name", CONFIGS)
def test_without_data_says_so_in_a_way_that_a_dry_run_can_go_on_from(name: str):
    config = importlib.import_module(f"configs.{name}").get_config()
    with pytest.raises(FileNotFoundError, match="root: cityflow lies on your disk"):
        runs.load_data(config)
