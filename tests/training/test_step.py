"""The training step: the paper's loss and schedule, meshes, accumulation, averages."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dex_jax import models, training
from dex_jax.models._partition import PartitionNetwork
from dex_jax.models._resnet import resnet_plan
from dex_jax.models._start import initialise
from dex_jax.pipeline import normalize
from tests.compilation import optimised

# Fixtures are compiled steps: on one worker, each is compiled once.
pytestmark = [
    pytest.mark.xdist_group("training"),
    pytest.mark.usefixtures("quick_programs"),
]

AUGMENT = {"flip": 0.5, "contrast": 0.1, "brightness": 0.1, "erase": 0.5}


def short_network(
    *,
    blocks: int = 1,
    cuts: tuple[tuple[int, int, int], ...] = ((2, 1, 1), (1, 2, 1)),
    **options: Any,
) -> training.Network:
    """A trunk of the stem and a block or two, cut into parts: compiled in seconds."""
    plan = resnet_plan(width=8, ibn=True)
    short = plan._replace(units=plan.units[: 1 + blocks], channels=32, stride=4)
    parts = models.parts.layout(cuts)
    make = functools.partial(PartitionNetwork, short, parts, num_classes=4, dim=4)
    made = initialise(lambda: make(trunk_split="none", **options), 0)
    return training.Network(*models.split(made), parts, short.channels, short.stride)


@pytest.fixture(scope="module")
def network() -> training.Network:
    return short_network()


@pytest.fixture(scope="module")
def batch() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    return jnp.asarray(images), jnp.repeat(jnp.arange(4, dtype=jnp.int32), 2)


def make_step(network: training.Network, **options: Any):
    schedule = training.learning_rate(learning_rate=1e-2, steps_per_epoch=2)
    transform = training.optimizer(schedule)
    step = training.train_step(
        network, transform, schedule, seed=7, augmentation=AUGMENT, loss={}, **options
    )
    state = training.init_state(network, transform, average=options.get("average", 0))
    return step, state


@pytest.fixture(scope="module")
def compiled(network: training.Network) -> training.Step:
    return jax.jit(make_step(network)[0])


@pytest.fixture(scope="module")
def two_steps(
    network: training.Network,
    batch: tuple[jax.Array, jax.Array],
    compiled: training.Step,
):
    """States and figures of two steps on one device."""
    state = make_step(network)[1]
    states, figures = [state], []
    for _ in range(2):
        state, metrics = compiled(state, *batch)
        states.append(state)
        figures.append(metrics)
    return states, figures


@pytest.mark.quick
def test_a_step_changes_everything_it_should(two_steps):
    (before, after, _), figures = two_steps
    assert int(after.step) == 1
    for part in ("params", "stats"):
        moved = jax.tree.map(
            lambda a, b: not np.array_equal(a, b),
            getattr(before, part),
            getattr(after, part),
        )
        assert all(jax.tree.leaves(moved)), part
    first = figures[0]
    assert first["part_loss"].shape == (6,)
    assert float(first["learning_rate"]) == pytest.approx(1e-2)
    assert float(first["gradient_norm"]) > 0
    assert float(first["hardest_positive"]) > 0


def test_compiled_gradients_are_those_of_the_printed_formula():
    """Smooth images: whole regions are nearly equal where the maxima are taken."""
    network = short_network(cuts=((2, 2, 1),))
    rng = np.random.default_rng(2)
    coarse = rng.standard_normal((8, 6, 6, 3)).astype(np.float32)
    images = jnp.asarray(coarse.repeat(8, axis=1).repeat(8, axis=2))
    labels = jnp.repeat(jnp.arange(4), 2)
    loss_of = functools.partial(
        training.partition_loss, local_parts=network.parts.num_local
    )

    def loss(params: Any) -> jax.Array:
        (embeddings, logits), _ = models.apply(
            network.graphdef, params, network.stats, images, train=True
        )
        return loss_of(embeddings, logits, labels)[0]

    with optimised(True):  # as users compile it
        compiled = jax.jit(jax.grad(loss))(network.params)["trunk"]
    op_by_op = jax.grad(loss)(network.params)["trunk"]
    assert relative_error(compiled, op_by_op) < 1e-3


@pytest.mark.quick
def test_the_same_state_gives_the_same_step_and_another_step_other_noise(
    batch, compiled, two_steps
):
    states, figures = two_steps
    again, metrics = compiled(states[1], *batch)
    chex.assert_trees_all_equal(metrics, figures[1])
    chex.assert_trees_all_equal(again, states[2])
    # The same weights at another step number see other augmentations.
    other = states[0]._replace(step=states[0].step + 1)
    assert float(compiled(other, *batch)[1]["loss"]) != float(figures[0]["loss"])


def make_plain_step(network: training.Network):
    """Plain gradient descent: rounding is not divided by itself, as Adam does."""
    schedule = optax.constant_schedule(1e-4)
    transform = optax.sgd(schedule)
    step = training.train_step(
        network, transform, schedule, seed=7, augmentation=AUGMENT, loss={}
    )
    return step, training.init_state(network, transform)


class Plain(NamedTuple):
    """Four plain steps on one device."""

    figures: list[training.Metrics]  # of each step
    states: list[training.TrainState]  # after each step
    memory: int  # bytes that a step needs beside its arguments


@pytest.fixture(scope="module")
def plain_steps(network: training.Network, batch: tuple[jax.Array, jax.Array]) -> Plain:
    return take_plain_steps(network, batch, steps=4)


def take_plain_steps(
    network: training.Network, batch: tuple[jax.Array, jax.Array], *, steps: int
) -> Plain:
    step, state = make_plain_step(network)
    mesh = training.data_mesh(jax.devices()[:1])
    shardings = training.state_shardings(state, mesh)
    jitted: Any = training.compile_step(step, mesh, shardings)
    compiled = jitted.lower(state, *batch).compile()
    # The step gives the memory of its state back: it gets a copy.
    state = jax.device_put(jax.tree.map(jnp.copy, state), shardings)
    figures, states = [], []
    for _ in range(steps):
        state, metrics = compiled(state, *batch)
        figures.append(metrics)
        states.append(jax.device_get(state))
    return Plain(figures, states, compiled.memory_analysis().temp_size_in_bytes)


def relative_error(tree: Any, expected: Any) -> float:
    difference = optax.tree.norm(optax.tree.sub(tree, expected))
    return float(difference / optax.tree.norm(expected))


@pytest.mark.parametrize(("devices", "split"), [(2, False), (8, False), (8, True)])
def test_meshes_give_the_losses_and_statistics_of_one_device(
    network, batch, plain_steps, devices, split
):
    mesh = training.data_mesh(jax.devices()[:devices])
    step, state = make_plain_step(network)
    shardings = training.state_shardings(
        state, mesh, shard_parameters=split, smallest=64
    )
    places = {s.is_fully_replicated for s in jax.tree.leaves(shardings.params)}
    assert places == ({True, False} if split else {True})
    state = jax.device_put(jax.tree.map(jnp.copy, state), shardings)
    compiled = training.compile_step(step, mesh, shardings)
    for expected, after in zip(plain_steps.figures, plain_steps.states, strict=True):
        state, metrics = compiled(state, *batch)
        for name in ("loss", "gradient_norm", "part_loss", "hardest_positive"):
            np.testing.assert_allclose(
                metrics[name], expected[name], rtol=1e-4, err_msg=name
            )
        whole = training.local_copy(state.stats, mesh)
        assert relative_error(whole, after.stats) < 1e-4
    assert int(state.step) == 4


def test_accumulation_takes_the_mean_of_the_halves(network, batch):
    """Gradient descent of rate 1: what the weights lose is the gradient."""
    still = {"flip": 0.0, "contrast": 0.0, "brightness": 0.0, "erase": 0.0}
    schedule = optax.constant_schedule(1.0)
    step = training.train_step(
        network, optax.sgd(schedule), schedule,
        seed=7, augmentation=still, loss={}, accumulate=2,
    )  # fmt: skip
    state = training.init_state(network, optax.sgd(schedule))
    after, figures = jax.jit(step)(state, *batch)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        (embeddings, logits), _ = models.apply(
            network.graphdef, params, network.stats, normalize(images), train=True
        )
        local = network.parts.num_local
        return training.partition_loss(embeddings, logits, labels, local_parts=local)[0]

    slope = jax.jit(jax.value_and_grad(loss))
    halves = [slope(state.params, *(x[part] for x in batch))
              for part in (slice(4), slice(4, None))]  # fmt: skip
    gradient = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][1], halves[1][1])
    expected = jax.tree.map(lambda p, g: p - g, state.params, gradient)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-3, atol=1e-4)
    mean = (halves[0][0] + halves[1][0]) / 2
    np.testing.assert_allclose(figures["loss"], mean, rtol=1e-4)
    norm = optax.tree.norm(gradient)
    np.testing.assert_allclose(figures["gradient_norm"], norm, rtol=1e-3)


def test_accumulation_and_moving_average(network, batch):
    step, state = make_step(network, accumulate=2, average=0.75)
    after, metrics = jax.jit(step)(state, *batch)
    assert metrics["loss"].shape == ()
    assert metrics["part_loss"].shape == (6,)
    assert np.isfinite(float(metrics["loss"]))
    expected = jax.tree.map(
        lambda old, new: 0.75 * old + 0.25 * new, state.params, after.params
    )
    chex.assert_trees_all_close(after.average, expected, rtol=1e-4, atol=1e-6)


def test_descriptors_are_unit_rows_and_share_one_compilation(network):
    describe = training.describer(network.graphdef)
    images = jnp.ones((2, 32, 32, 3))
    calls = chex.assert_max_traces(n=1)(lambda apply, x: apply(x))
    run = jax.jit(calls)
    rows = run(describe(network.params, network.stats), images)
    twice = jax.tree.map(lambda p: 2 * p, network.params)
    other = run(describe(twice, network.stats), images)
    assert rows.shape == (2, 24)
    np.testing.assert_allclose(jnp.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert not np.allclose(rows, other)


def test_computing_blocks_again_changes_no_gradient_and_saves_memory(
    batch,
):
    plain, again = (
        take_plain_steps(short_network(blocks=2, remat=remat), batch, steps=1)
        for remat in (False, True)
    )
    metrics, expected = again.figures[0], plain.figures[0]
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        metrics["gradient_norm"], expected["gradient_norm"], rtol=1e-4
    )
    for part in ("params", "stats"):
        kept = getattr(plain.states[0], part)
        assert relative_error(getattr(again.states[0], part), kept) < 1e-5
    assert again.memory < 0.7 * plain.memory


def test_cosine_heads_and_gem_train(batch):
    """Logits are cosines; every parameter, the powers of the pools too, has a slope."""
    network = short_network(classifier="cosine", pooling="gem")
    images, labels = jnp.ones((8, 32, 32, 3)), batch[1]
    images = images * jnp.linspace(-1, 1, 8).reshape(8, 1, 1, 1)

    def loss(params: Any):
        (embeddings, logits), _ = models.apply(
            network.graphdef, params, network.stats, images, train=True
        )
        options: dict[str, Any] = {"angular_margin": 0.3, "circle_weight": 0.1}
        value, _ = training.partition_loss(
            embeddings, logits, labels, local_parts=4, **options
        )
        return value, logits

    slopes, logits = jax.jit(jax.grad(loss, has_aux=True))(network.params)
    assert float(jnp.abs(logits).max()) <= 1 + 1e-5
    assert network.params["power"].tolist() == [3.0, 3.0]
    assert np.all(np.asarray(slopes["power"]) != 0)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(slopes))
    assert float(jnp.abs(slopes["classifier"]).max()) > 0
