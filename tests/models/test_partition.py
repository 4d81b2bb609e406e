import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from dex_jax import losses, models
from dex_jax.models._layers import BatchNorm
from tests.models.golden_networks import QUICK_COMPILE

build_small = functools.partial(
    models.build,
    "resnet_slim",
    num_classes=5,
    dim=6,
    width=2,
    blocks=(1, 1, 2, 1),
)


def _count(tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("trunk_split", "millions"), [("none", 23.5), ("stage4", 53.4), ("stage3.1", 64.6)]
)
def test_parameter_count_of_the_trunk(trunk_split: str, millions: float):
    network = models.build(
        "resnet50", num_classes=333, trunk_split=trunk_split, rngs=None
    )
    _, params, _ = models.split(network)
    trunk = [params["trunk"], params.get("branches", {})]
    assert round(_count(trunk) / 1e6, 1) == millions
    heads = _count(params) - _count(trunk)
    # 14 parts of 1024 and 3 of 2048 channels, bias, batch norm scale, classifier.
    assert heads == (14 * 1024 + 3 * 2048) * 256 + 17 * 256 * (1 + 1 + 333)


def test_shapes_follow_the_layout():
    images = jnp.zeros((2, 64, 64, 3))
    for trunk_split in ("none", "stage4", "stage3.1"):
        network = build_small(trunk_split=trunk_split)
        embeddings, logits = jax.eval_shape(network, images)
        assert embeddings.shape == (2, 17, 6)
        assert logits.shape == (2, 17, 5)
        assert network.parts == models.parts.layout()


def test_embeddings_and_logits_by_hand():
    network = build_small(trunk_split="stage4", parts=((2, 1, 1), (1, 2, 1)))
    images = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    embeddings, logits = jax.jit(network)(images)
    shared = jax.jit(network.trunk)(images)
    maps = [jax.jit(network.branches[f"branch{b}"])(shared) for b in (1, 2)]
    half = maps[0].shape[3] // 2
    pooled = [
        maps[0][..., :half].max((1, 2)),
        maps[0][..., half:].max((1, 2)),
        maps[1][:, :2].max((1, 2)),
        maps[1][:, 2:].max((1, 2)),
        maps[0].max((1, 2)),
        maps[1].max((1, 2)),
    ]
    narrow, wide = (network.embed.kernels[f"width{w}"][...] for w in (half, 2 * half))
    kernels = [*narrow, *wide]
    for part, (vector, kernel) in enumerate(zip(pooled, kernels, strict=True)):
        by_hand = vector @ kernel
        np.testing.assert_allclose(embeddings[:, part], by_hand, rtol=1e-4, atol=1e-5)
        # A fresh batch norm divides by sqrt(1 + 1e-5) alone.
        expected = by_hand / np.sqrt(1 + 1e-5) @ network.classifier[part]
        np.testing.assert_allclose(logits[:, part], expected, rtol=1e-3, atol=1e-6)


def test_branches_that_share_nothing_start_differently():
    network = build_small(trunk_split="stage3.1")
    _, params, _ = models.split(network)
    first, second = (
        params["branches"][b]["units"]["layer3_1"]["conv1"]["kernel"]
        for b in ("branch1", "branch2")
    )
    assert network.trunk.order[-1] == "layer3_0"
    assert not jnp.array_equal(first, second)


@pytest.mark.parametrize("case", ["b16_d32_c10", "b32_d256_c64"])
def test_neck_and_losses_equal_the_golden_values(golden, case: str):
    z = np.load(golden / "losses" / f"bnneck_{case}.npz")
    with jax.enable_x64(True):
        neck = BatchNorm(z["x"].shape[1], use_bias=False)
        neck.scale = nnx.Param(jnp.asarray(z["gamma"]))
        neck.mean = nnx.BatchStat(jnp.asarray(z["running_mean_before"]))
        neck.var = nnx.BatchStat(jnp.asarray(z["running_var_before"]))
        labels = jnp.asarray(z["labels"])
        x, weight = jnp.asarray(z["x"]), jnp.asarray(z["classifier_weight"])
        np.testing.assert_allclose(neck(x), z["eval_output"], rtol=1e-12)
        graphdef, params, stats = models.split(neck)

        def total(x, weight, params):
            neck = nnx.view(
                models.merge(graphdef, params, stats), use_running_average=False
            )
            logits = neck(x) @ weight.T
            ce = losses.label_smoothed_cross_entropy(logits, labels)
            triplet = losses.batch_hard_triplet(x, labels, margin=0.3)
            _, _, new = models.split(neck)
            return 2 * ce + triplet, new

        run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
        (value, new), grads = run(x, weight, params)
    np.testing.assert_allclose(value, z["total_2ce_plus_1tri"], rtol=1e-12)
    np.testing.assert_allclose(grads[0], z["grad_x"], atol=1e-12)
    np.testing.assert_allclose(grads[1], z["grad_classifier_weight"], atol=1e-12)
    np.testing.assert_allclose(grads[2]["scale"], z["grad_gamma"], atol=1e-12)
    np.testing.assert_allclose(new["mean"], z["running_mean_after"], rtol=1e-12)
    unbiased = z["running_var_after_torch_unbiased"]
    np.testing.assert_allclose(new["var"], unbiased, rtol=1e-12)


def test_a_pure_training_step_and_a_checkpoint(tmp_path):
    network = build_small(trunk_split="stage3.1")
    graphdef, params, stats = models.split(network)
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)
    images = jax.random.normal(jax.random.key(0), (8, 64, 64, 3))
    labels = jnp.repeat(jnp.arange(4), 2)

    @functools.partial(
        jax.jit, donate_argnums=(0, 1, 2), compiler_options=QUICK_COMPILE
    )
    def step(params, stats, state):
        def loss(params):
            (embeddings, logits), new = models.apply(
                graphdef, params, stats, images, train=True
            )
            ce = jax.vmap(losses.label_smoothed_cross_entropy, (1, None))(
                logits, labels
            )
            triplet = jax.vmap(losses.batch_hard_triplet, (1, None))(embeddings, labels)
            return 2 * jnp.mean(ce) + jnp.mean(triplet), new

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), stats, state, value

    values = []
    for _ in range(4):
        params, stats, state, value = step(params, stats, state)
        values.append(float(value))
    assert values[-1] < values[0]

    saved = {"params": params, "stats": stats}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        target = jax.tree.map(jnp.zeros_like, saved)
        restored = checkpointer.restore(tmp_path / "state", target)
    again = models.merge(graphdef, restored["params"], restored["stats"])
    expected = models.merge(graphdef, params, stats)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(expected))


def test_bfloat16_arithmetic_keeps_float32_parameters_and_heads():
    network = build_small(trunk_split="none", dtype=jnp.bfloat16)
    images = jnp.zeros((2, 64, 64, 3))
    assert jax.eval_shape(network.trunk, images).dtype == jnp.bfloat16
    embeddings, logits = jax.eval_shape(network, images)
    assert embeddings.dtype == logits.dtype == jnp.float32
    graphdef, params, stats = models.split(network)
    _, moved = jax.eval_shape(
        functools.partial(models.apply, graphdef, train=True), params, stats, images
    )
    stored = {leaf.dtype for leaf in jax.tree.leaves((params, stats, moved))}
    assert stored == {jnp.dtype(jnp.float32)}


def test_evaluation_leaves_statistics_and_training_moves_them():
    graphdef, params, stats = models.split(models.backbone("resnet_slim", width=2))
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    run = jax.jit(models.apply, static_argnums=0, static_argnames="train")
    _, same = run(graphdef, params, stats, images, train=False)
    _, moved = run(graphdef, params, stats, images, train=True)
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    assert all(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True)
    )


def test_equal_seeds_give_equal_networks():
    first, again, other, keyed = (
        models.split(build_small(trunk_split="none", rngs=rngs))[1]
        for rngs in (3, 3, 4, nnx.Rngs(3))
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [
        tree["trunk"]["units"]["stem"]["conv1"]["kernel"]
        for tree in (first, other, keyed)
    ]
    assert len({float(kernel.sum()) for kernel in kernels}) == 3
    # He normal, fan out: 7 x 7 x 2 values a pixel.
    _, params, _ = models.split(models.backbone("resnet50"))
    wide = params["units"]["layer4_2"]["conv2"]["kernel"]
    np.testing.assert_allclose(wide.std(), np.sqrt(2 / (9 * 512)), rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk_split": "stage5"}, "trunk_split: this backbone can be split at 'stag"),
        (
            {"trunk_split": "stage3.1", "blocks": (1, 1, 1, 1)},
            "can be split at 'stage4', 'none', got 'stage3.1'",
        ),
        ({"num_classes": 1}, "num_classes: expected at least 2, got 1"),
        ({"dim": 0}, "dim: expected at least 1, got 0"),
        ({"parts": ((3, 1, 1),)}, r"cuts 64 channels into 3 equal pieces"),
        ({"expected_parts": 18}, "gives 17 parts .* expected_parts is 18"),
    ],
)
def test_bad_options_are_named(options, message: str):
    with pytest.raises(ValueError, match=message):
        build_small(**{"rngs": None, **options})


def test_images_too_small_for_the_cuts_are_explained():
    network = build_small(trunk_split="none")
    with pytest.raises(ValueError, match=r"branch 1 \(2, 3, 1\) .* map is 2 x 2; use"):
        jax.eval_shape(network, jnp.zeros((1, 32, 32, 3)))
