"""Forward and training step of two backbones, ours beside PyTorch in one run.

Command: `python -m benchmarks.models [--size 128] [--batch 8]`, in an
environment that has `torch`. ResNet50-IBN-a is written out below for PyTorch as its
authors define it; both sides run the same network without a classifier and a loss that
is the sum of squares. Each side runs in a process of its own and reports processor
seconds (all threads) beside wall time: on a busy machine the former is the sounder.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

NETWORKS = ("resnet50_ibn_a", "efficientnet_b1")


def measure(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """The fastest of several runs, wall and processor seconds."""
    run()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {"wall": min(walls), "processor": min(processors)}


def ours(
    name: str, images: np.ndarray, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Forward pass and training step (gradient and a plain update) in JAX."""
    import jax
    import jax.numpy as jnp

    from dex_jax import models

    graphdef, params, stats = models.split(models.backbone(name, last_stride=1))
    x = jnp.asarray(images)
    forward = jax.jit(functools.partial(models.apply, graphdef, train=False))

    @jax.jit
    def step(params, stats):
        def loss(params):
            y, new = models.apply(graphdef, params, stats, x, train=True)
            return jnp.mean(y * y), new

        (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), stats

    return (
        measure(lambda: jax.block_until_ready(forward(params, stats, x)), repeats),
        measure(lambda: jax.block_until_ready(step(params, stats)), repeats),
    )


def theirs(
    name: str, images: np.ndarray, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The same in PyTorch."""
    from benchmarks import torch_networks

    torch = torch_networks.torch
    network = torch_networks.BUILDERS[name]()
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def forward() -> None:
        network.eval()
        with torch.inference_mode():
            network(x)

    def step() -> None:
        network.train()
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return measure(forward, repeats), measure(step, repeats)


def one(side: str, name: str, size: int, batch: int, repeats: int) -> None:
    """Measures one side and prints a line of JSON."""
    shape = (batch, size, size, 3)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    forward, step = {"ours": ours, "torch": theirs}[side](name, images, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"forward": forward, "step": step, "peak": peak}))


def main() -> None:
    """Runs every pair in processes of their own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "NETWORK"))
    args = parser.parse_args()
    if args.one:
        one(args.one[0], args.one[1], args.size, args.batch, args.repeats)
        return
    print("network          side   forward          step             peak GiB")
    print("                        img/s  img/cpu-s img/s  img/cpu-s")
    for name in NETWORKS:
        for side in ("ours", "torch"):
            command = [sys.executable, "-m", "benchmarks.models", "--one", side, name]
            for option in ("size", "batch", "repeats"):
                command += [f"--{option}", str(getattr(args, option))]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            result = json.loads(out.stdout.splitlines()[-1])
            rates = [
                args.batch / result[what][clock]
                for what in ("forward", "step")
                for clock in ("wall", "processor")
            ]
            print(
                f"{name:16} {side:5} "
                + " ".join(f"{rate:8.1f}" for rate in rates)
                + f" {result['peak']:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
