"""Counts what XLA makes of the kernels for a GPU, on a machine that has none.

    python -m benchmarks.compiled
    python -m benchmarks.compiled --size market --only search --loops

Each program is compiled for the GPU that a target description names, and the compiled
text is read. Needed beside the package: `jax-cuda12-plugin` and `jax-cuda12-pjrt` of
jax's own version, and, without their dependencies, `nvidia-cuda-nvcc-cu12` and
`nvidia-cuda-runtime-cu12`. Programs are those of `PROGRAMS` in `programs.py`.
The kernels take the form that `DEX_JAX_FORM` names, "wide" where it is not set.

What is counted, and how:

- One kernel for each instruction that launches something: fusions, products, copies on
  the device, custom calls. Parameters, constants, tuples, bitcasts and the second
  halves of asynchronous pairs launch nothing. Calls count as what they call.
- A sort is one kernel up to a tile of 4,096 columns (less where the operands of a tile
  would not fit into 48 KiB) and a bitonic network of kernels beyond: 3, 6, 10, 15 for
  twice, four, eight, sixteen times the tile. Copies of its operands are not seen.
- A loop of known length: its body as often as it runs, its predicate once more; loops
  inside loops multiply. XLA leaves such a predicate out when it runs the loop: the
  column "of them predicates" says how many of the kernels these are.
- A loop whose length depends on data counts as one trip: body once, predicate twice.
  "kernels a trip" are those of the body and of one predicate, for each loop. Each trip
  waits for the host, which reads the predicate; so does each conditional. For the
  Jaccard `--trips` counts them on clustered data.
- Of a conditional the branch with the most kernels counts. What stands in its other
  branches is still listed in the other columns.
- Loops and conditionals are counted where they stand in the program, and how often they
  are entered where that is more; sorts wider than 4,096 columns and custom calls as
  often as they run. All of these multiply by loops of known length.

Without a device nothing is tuned: products show as Triton kernels and wide sorts as
XLA's own, where a live GPU may take cuBLAS and CUB. With `XLA_FLAGS=--xla_dump_to=DIR`
XLA writes its own list of launches, `*.thunk_sequence.txt`, to hold the counts against.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from benchmarks.clustered import SIZES
from benchmarks.kernel_counts import (
    Body,
    cells,
    read_body,
    read_module,
    summarise,
    tree,
)
from benchmarks.programs import PROGRAMS, Program, jaccard_trips

COLUMNS = (
    "program",
    "kernels",
    "of them predicates",
    "loops of unknown length",
    "kernels a trip",
    "conditionals",
    "wide sorts",
    "custom calls",
    "temp MiB",
    "lower s",
    "compile s",
)
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt")
TARGET = Path(__file__).parents[2] / "shared" / "gpu" / "h100.txtpb"
MIB = 2**20


class Compiled(NamedTuple):
    body: Body
    temporary: int  # bytes
    lower: float  # seconds
    compile: float


def described_device(target: Path) -> jax.sharding.SingleDeviceSharding:
    """Returns the place of arrays on the GPU that a description names.

    Raises:
        SystemExit: no such file, one that XLA cannot read, or no plugin for CUDA.
    """
    if not target.is_file():
        raise SystemExit(
            f"no target description at {target}: name one with --target FILE. On a "
            "machine with the GPU, XLA_FLAGS=--xla_dump_to=FOLDER writes one beside "
            "each program (*.gpu_target_config.pbtxt)"
        )
    try:
        topology = topologies.get_topology_desc(
            "", "cuda", target_config=target.read_text(), topology="1x1x1"
        )
    except NotImplementedError:
        version = importlib.metadata.version("jax")
        raise SystemExit(
            "jax finds no plugin for CUDA: pip install "
            f"jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version}, and with "
            "--no-deps nvidia-cuda-nvcc-cu12 nvidia-cuda-runtime-cu12"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        raise SystemExit(f"{target} describes no GPU: {error}") from None
    return jax.sharding.SingleDeviceSharding(topology.devices[0])


def compile_for(device: jax.sharding.Sharding, program: Program) -> Compiled:
    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    args, kwargs = jax.tree.map(place, (program.args, dict(program.kwargs)))
    start = time.perf_counter()
    lowered = program.function.lower(*args, **kwargs)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    module = read_module(compiled.as_text() or "")
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes if memory else 0
    body = read_body(module, module.entry)
    return Compiled(body, temporary, middle - start, end - middle)


# The command.


def main() -> None:
    options = _options()
    os.environ.setdefault("DEX_JAX_FORM", "wide")
    # Its libraries are not asked for: nothing runs.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    device = described_device(options.target)
    print("\n".join(_header(device)))
    sizes = ("cityflow", "market") if options.size == "both" else (options.size,)
    failed = [_table(options, name, device) for name in sizes]
    sys.exit(1 if any(failed) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--size", choices=(*SIZES, "both"), default="both", help="cityflow and market"
    )
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--loops", action="store_true", help="print the loops of each")
    parser.add_argument(
        "--trips", action="store_true", help="count the trips of the Jaccard on data"
    )
    parser.add_argument(
        "--target",
        type=Path,
        default=TARGET,
        metavar="FILE",
        help="the GPU to compile for, a GpuTargetConfigProto as text",
    )
    return parser.parse_args()


def _header(device: jax.sharding.Sharding) -> list[str]:
    import dex_jax

    folder = Path(dex_jax.__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        cwd=folder,
    ).stdout.strip()
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} missing")
    kind = next(iter(device.device_set)).device_kind
    command = " ".join(("python -m benchmarks.compiled", *sys.argv[1:]))
    return [
        f"- command: `{command}`",
        f"- commit: {commit or 'unknown'}; {', '.join(found)}",
        f"- compiled for: {kind}, which is not there; "
        f"DEX_JAX_FORM={os.environ['DEX_JAX_FORM']}",
    ]


def _table(
    options: argparse.Namespace, name: str, device: jax.sharding.Sharding
) -> bool:
    """Prints the table of one size; returns whether a program was not compiled."""
    size, trees, failed = SIZES[name], [], False
    shape = f"Q {size.queries:,}, G {size.gallery:,}, D {size.width}"
    print(f"\n### {name} ({shape})\n\n| {' | '.join(COLUMNS)} |")
    print("| --- " * len(COLUMNS) + "|", flush=True)
    for key, programs in PROGRAMS.items():
        try:
            chosen = [p for p in programs(size) if options.only in f"{key}: {p.label}"]
        except (ImportError, AttributeError) as error:
            failed = True
            _print_row(key, [f"not found: {error}"])
            continue
        for program in chosen:
            try:
                found = compile_for(device, program)
            except Exception as error:
                failed = True
                reason = (str(error).splitlines() or [""])[0]
                row = [f"not compiled: {type(error).__name__}: {reason}"]
                _print_row(program.label, row)
                continue
            seconds = (f"{found.lower:.2f}", f"{found.compile:.2f}")
            memory = f"{found.temporary / MIB:,.0f}"
            row = [*cells(summarise(found.body)), memory, *seconds]
            _print_row(program.label, row)
            trees += tree(found.body, program.label)
    if options.loops and trees:
        print("\n```text", *trees, "```", sep="\n", flush=True)
    if options.trips:
        print(f"\n{jaccard_trips(size)}", flush=True)
    return failed


def _print_row(label: str, row: list[str]) -> None:
    row = [label, *row, *[""] * (len(COLUMNS) - 1 - len(row))]
    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
