"""Forward and training step of two backbones, ours beside PyTorch in one run.

Command: `python -m benchmarks.models [--size 128] [--batch 8]`, in an
environment that has `torch`. PyTorch's networks are in `benchmarks.torch_networks`;
both sides run one set of weights, which goes over as the safetensors file that
`save_torch_weights` writes, and the largest difference between their feature maps is
printed. The loss is the mean square of the map, the update a plain gradient step.
PyTorch runs in its own layout (NCHW) and with channels last. Every side runs in a
process of its own with all cores; figures are medians, memory is the process's peak.
Processor seconds (all threads) stand beside wall time for busy machines.

Our side keeps freed memory as `train.py` and `evaluate.py` do (`dex_jax.runs._memory`).
PyTorch runs as it comes and, "kept", with the same setting.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("resnet50_ibn_a", "efficientnet_b1")
SIDES = (
    "ours",
    "torch",
    "torch, channels last",
    "torch, kept",
    "torch, channels last, kept",
)

Measured = dict[str, dict[str, float]]


def measure(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median wall and processor seconds of several runs after a first one."""
    run()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "wall": statistics.median(walls),
        "processor": statistics.median(processors),
    }


def ours(
    name: str, images: np.ndarray, repeats: int, folder: Path
) -> tuple[Measured, np.ndarray]:
    """Forward pass and training step (gradient and a plain update) in JAX."""
    import jax
    import jax.numpy as jnp

    from dex_jax import models
    from dex_jax.runs import _memory

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    network = models.backbone(name, last_stride=1)
    models.save_torch_weights(network, folder / f"{name}.safetensors")
    graphdef, params, stats = models.split(network)
    x = jnp.asarray(images)
    forward = jax.jit(functools.partial(models.apply, graphdef, train=False))

    @jax.jit
    def step(params, stats):
        def loss(params):
            y, new = models.apply(graphdef, params, stats, x, train=True)
            return jnp.mean(y * y), new

        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), stats

    features = np.asarray(forward(params, stats, x)[0]).transpose(0, 3, 1, 2)
    with _memory.freed_memory_kept() as kept:
        assert kept, "freed memory cannot be kept here: the figures would mislead"
        measured = {
            "forward": measure(
                lambda: jax.block_until_ready(forward(params, stats, x)), repeats
            )
        }
    measured["loss"] = {"wall": float(step(params, stats)[0])}
    assert _memory.keep_freed_memory()
    measured["step"] = measure(
        lambda: jax.block_until_ready(step(params, stats)), repeats
    )
    return measured, features


def theirs(
    name: str, images: np.ndarray, repeats: int, folder: Path, *, options: list[str]
) -> tuple[Measured, np.ndarray]:
    """The same in PyTorch."""
    from benchmarks import torch_networks
    from dex_jax import models
    from dex_jax.runs import _memory

    if "kept" in options:
        assert _memory.keep_freed_memory()
    torch = torch_networks.torch
    torch.set_num_threads(os.cpu_count() or 1)
    network = torch_networks.BUILDERS[name]()
    weights = models.read_torch_checkpoint(folder / f"{name}.safetensors")
    left = network.load_state_dict(
        {key: torch.from_numpy(value) for key, value in weights.items()}, strict=False
    )
    assert not left.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in left.missing_keys)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    if "channels last" in options:
        x = x.to(memory_format=torch.channels_last)
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []

    def forward() -> Any:
        network.eval()
        with torch.inference_mode():
            return network(x)

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        loss = network(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    features = forward().numpy()
    measured = {"forward": measure(forward, repeats), "step": measure(step, repeats)}
    return measured | {"loss": {"wall": losses[0]}}, features


def one(
    side: str, name: str, size: int, batch: int, repeats: int, folder: Path
) -> None:
    """Measures one side and prints a line of JSON."""
    shape = (batch, size, size, 3)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if side == "ours":
        measured, features = ours(name, images, repeats, folder)
    else:
        measured, features = theirs(
            name, images, repeats, folder, options=side.split(", ")[1:]
        )
    np.save(folder / f"{name} {side}.npy", features)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(measured | {"peak": peak}))


def _run(side: str, name: str, args: argparse.Namespace, folder: Path) -> Any:
    command = [sys.executable, "-m", "benchmarks.models", "--one", side, name]
    command += ["--folder", str(folder)]
    for option in ("size", "batch", "repeats"):
        command += [f"--{option}", str(getattr(args, option))]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    """Runs every side in a process of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "NETWORK"))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.one:
        side, name = args.one
        one(side, name, args.size, args.batch, args.repeats, args.folder)
        return
    print(f"batch {args.batch} x {args.size} x {args.size}, {os.cpu_count()} cores")
    print(
        "| network | side | forward img/s | per cpu-s | step img/s | per cpu-s |",
        end="",
    )
    print(" peak GiB | map differs | loss differs | ours/it, forward | step |")
    print("| --- " * 11 + "|")
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        for name in args.network or NETWORKS:
            reference, expected = {}, np.zeros(0)
            for side in SIDES:
                result = _run(side, name, args, folder)
                features = np.load(folder / f"{name} {side}.npy")
                if side == "ours":
                    reference, expected = result, features
                print(
                    _row(name, side, args.batch, result, features, reference, expected)
                )


def _row(
    name: str,
    side: str,
    batch: int,
    result: Any,
    features: np.ndarray,
    reference: Any,
    expected: np.ndarray,
) -> str:
    rates = [
        f"{batch / result[what][clock]:.1f}"
        for what in ("forward", "step")
        for clock in ("wall", "processor")
    ]
    differs = np.abs(features - expected).max() / np.abs(expected).max()
    losses = [each["loss"]["wall"] for each in (result, reference)]
    cells = [name, side, *rates, f"{result['peak']:.2f}", f"{differs:.0e}"]
    cells.append(f"{abs(losses[0] - losses[1]) / losses[1]:.0e}")
    for what in ("forward", "step"):
        cells.append(f"{result[what]['wall'] / reference[what]['wall']:.2f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
