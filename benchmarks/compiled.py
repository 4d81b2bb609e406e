"""Counts what XLA makes of the kernels for a GPU, on a machine that has none.

    python -m benchmarks.compiled
    python -m benchmarks.compiled --size market --only search --loops

Each program is compiled for the GPU that a target description names, and the compiled
text is read. Needed beside the package: `jax-cuda12-plugin` and `jax-cuda12-pjrt` of
jax's own version, and, without their dependencies, `nvidia-cuda-nvcc-cu12` and
`nvidia-cuda-runtime-cu12`. Programs are those of `PROGRAMS`, at the end of this file.
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
import functools
import importlib.metadata
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from benchmarks.clustered import SIZES, Size, make

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
# Sorts up to here are one kernel, if a tile of their operands fits into shared memory.
SORT_TILE, SHARED_MEMORY = 4096, 48 * 1024
NOTHING_LAUNCHED = {
    "add-dependency",
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}


# Reading the text of a compiled program.


@dataclass(frozen=True)
class Instruction:
    """One line: `name = shape opcode(operands), key=value, ...`."""

    name: str
    opcode: str
    shape: str
    attributes: Mapping[str, str]

    @functools.cached_property
    def label(self) -> str:
        """The end of the path of traced functions, or the name."""
        found = re.search(r'op_name="([^"]*)"', self.attributes.get("metadata", ""))
        return "/".join(found[1].split("/")[-3:]) if found else self.name

    def called(self, *keys: str) -> list[str]:
        """The computations that these attributes name, in their order."""
        text = " ".join(self.attributes.get(key, "") for key in keys)
        return re.findall(r"[\w.\-]+", text)

    @property
    def trips(self) -> int | None:
        """How often a `while` runs, None where XLA does not know it."""
        config = self.attributes.get("backend_config", "")
        found = re.search(r"known_trip_count\W+n\W+(\d+)", config)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Module:
    entry: Computation
    computations: Mapping[str, Computation]


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_ASSIGNMENT = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
# What matters to nesting: a quoted string as a whole, a bracket, a comma.
_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}\[\],]')


def read_module(text: str) -> Module:
    """Reads the text of a compiled program, once."""
    entry, computations = None, {}
    name, lines = None, []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif name is not None and line.startswith("}"):
            computations[name] = Computation(name, tuple(lines))
            name = None
        elif name is not None and (found := _ASSIGNMENT.match(line)):
            lines.append(_instruction(found[1], found[2]))
    if entry is None:
        raise ValueError("no ENTRY computation: not the text of a compiled program")
    return Module(computations[entry], computations)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    shape, text = text[:end], text[end:].lstrip()
    opcode, _, _ = text.partition("(")
    text = text[len(opcode) :]
    pairs = (part.partition("=") for part in _parts(text[_closing(text) :]))
    attributes = {key.strip(): value for key, _, value in pairs if value}
    return Instruction(name, opcode, shape, attributes)


def _marks(text: str) -> Iterator[tuple[int, str, int]]:
    """Yields each bracket and comma: its place, itself, the depth after it."""
    depth = 0
    for found in _MARK.finditer(text):
        mark = found[0]
        if mark[0] != '"':
            depth += (mark in "({[") - (mark in ")}]")
            yield found.start(), mark, depth


def _closing(text: str) -> int:
    """Where the bracket that the text begins with has been closed."""
    return next(place + 1 for place, _, depth in _marks(text) if depth == 0)


def _parts(text: str) -> Iterator[str]:
    """The text between commas that stand in no bracket."""
    start = 0
    for place, mark, depth in _marks(text):
        if mark == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


# Loops inside loops, and what each launches.


@dataclass
class Body:
    """What runs one after another: kernels by kind, loops and conditionals."""

    launches: Counter[str] = field(default_factory=Counter)
    sorts: list[int] = field(default_factory=list)  # the columns of each
    inside: "list[Loop | Conditional]" = field(default_factory=list)

    @functools.cached_property
    def kernels(self) -> int:
        return self.launches.total() + sum(part.kernels for part in self.inside)


@dataclass(frozen=True)
class Loop:
    label: str
    trips: int | None
    body: Body
    predicate: Body

    @property
    def counted(self) -> int:
        """Trips that are counted: one where nobody knows how many there are."""
        return 1 if self.trips is None else self.trips

    @property
    def kernels(self) -> int:
        predicates = (self.counted + 1) * self.predicate.kernels
        return self.counted * self.body.kernels + predicates


@dataclass(frozen=True)
class Conditional:
    label: str
    branches: tuple[Body, ...]

    @property
    def kernels(self) -> int:
        return max(branch.kernels for branch in self.branches)


def read_body(module: Module, computation: Computation) -> Body:
    """Sorts the instructions of a computation into kernels, loops and conditionals."""
    body = Body()
    for instruction in computation.instructions:
        _add_instruction(module, instruction, body)
    return body


def _add_instruction(module: Module, instruction: Instruction, body: Body) -> None:
    opcode = instruction.opcode

    def bodies(*keys: str) -> list[Body]:
        names = instruction.called(*keys)
        return [read_body(module, module.computations[name]) for name in names]

    if opcode in NOTHING_LAUNCHED or opcode.endswith(("-done", "-update")):
        return
    if opcode == "while":
        inner, predicate = bodies("body", "condition")
        loop = Loop(instruction.label, instruction.trips, inner, predicate)
        body.inside.append(loop)
    elif opcode == "conditional":
        keys = ("branch_computations", "true_computation", "false_computation")
        body.inside.append(Conditional(instruction.label, tuple(bodies(*keys))))
    elif opcode in ("call", "async-start"):
        for called in bodies("to_apply", "calls"):
            body.launches += called.launches
            body.sorts += called.sorts
            body.inside += called.inside
    elif opcode == "custom-call":
        target = instruction.attributes.get("custom_call_target", "unnamed")
        body.launches["custom-call " + target.strip('"')] += 1
    else:
        _add_kernel(module, instruction, body)


def _add_kernel(module: Module, instruction: Instruction, body: Body) -> None:
    """Adds one kernel, or those of a sort, which may stand inside a fusion."""
    within = [instruction]
    if instruction.opcode == "fusion":
        for name in instruction.called("calls"):
            within += module.computations[name].instructions
    sorts = [each for each in within if each.opcode == "sort"]
    if not sorts:
        body.launches[instruction.opcode] += 1
    for sort in sorts:
        width, row = _sorted_width(sort)
        body.launches["sort"] += sort_kernels(width, row)
        body.sorts.append(width)


def _sorted_width(sort: Instruction) -> tuple[int, int]:
    """Columns that a sort orders, and the bytes of one column of all its operands."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", sort.shape)
    digits = [re.search(r"\d+", kind) for kind, _ in shapes]
    row = sum(max(1, int(found[0]) // 8) if found else 1 for found in digits)
    axis = int(re.sub(r"\D", "", sort.attributes["dimensions"]))
    return int(shapes[0][1].split(",")[axis]), row


def sort_kernels(width: int, row: int) -> int:
    """Kernels of XLA's bitonic sort of `width` columns, `row` bytes each.

    Steps within a tile share a kernel. Each doubling beyond the tile adds a kernel for
    each of its steps that reach over tiles, and one for all the others.
    """
    tile = min(SORT_TILE, 2 ** int(math.log2(SHARED_MEMORY // row)))
    doublings = max(0, math.ceil(math.log2(width / tile)))
    return 1 + doublings * (doublings + 3) // 2


# Summing up.


@dataclass
class Summary:
    """The figures of one program; the rules stand at the top of this file."""

    kernels: int = 0
    predicates: int = 0
    trips: list[int] = field(default_factory=list)  # kernels a trip, each open loop
    loops_entered: int = 0
    conditionals: int = 0
    conditionals_entered: int = 0
    sorts: Counter[int] = field(default_factory=Counter)  # wide ones, by columns
    custom_calls: Counter[str] = field(default_factory=Counter)


def summarise(body: Body) -> Summary:
    found = Summary(kernels=body.kernels)
    _collect(body, 1, found)
    return found


def _collect(body: Body, times: int, found: Summary) -> None:
    """Adds a body that runs so many times, and what it holds."""
    for width in body.sorts:
        if width > SORT_TILE:
            found.sorts[width] += times
    for kind, count in body.launches.items():
        if kind.startswith("custom-call "):
            found.custom_calls[kind.removeprefix("custom-call ")] += count * times
    for part in body.inside:
        if isinstance(part, Conditional):
            found.conditionals += 1
            found.conditionals_entered += times
            for branch in part.branches:
                _collect(branch, times, found)
            continue
        if part.trips is None:
            found.trips.append(part.body.kernels + part.predicate.kernels)
            found.loops_entered += times
        else:
            found.predicates += times * (part.trips + 1) * part.predicate.kernels
        _collect(part.body, times * part.counted, found)
        _collect(part.predicate, times * (part.counted + 1), found)


def cells(found: Summary) -> list[str]:
    """The columns of a row from "kernels" to "custom calls"."""

    def places(count: int, entered: int) -> str:
        more = f", entered {entered:,} times" if entered > count else ""
        return f"{count}{more}"

    def runs(counts: Mapping[Any, int]) -> str:
        return ", ".join(f"{count:,} x {name}" for name, count in counts.items())

    trips = Counter(sorted(found.trips, reverse=True))
    return [
        f"{found.kernels:,}",
        f"{found.predicates:,}",
        places(len(found.trips), found.loops_entered),
        ", ".join(
            f"{kernels:,}" + (f" ({loops} loops)" if loops > 1 else "")
            for kernels, loops in trips.items()
        ),
        places(found.conditionals, found.conditionals_entered),
        runs({f"{width:,}": found.sorts[width] for width in sorted(found.sorts)}),
        runs({f"`{name}`": count for name, count in found.custom_calls.items()}),
    ]


def tree(body: Body, title: str = "program", depth: int = 0) -> Iterator[str]:
    """Yields a line for each body: what it launches itself, what it holds below it."""
    own = ", ".join(f"{count} {kind}" for kind, count in body.launches.most_common())
    wide = "".join(f", {width:,} wide" for width in body.sorts if width > SORT_TILE)
    yield f"{'  ' * depth}{title}: kernels {body.kernels:,}, own {own or 'none'}{wide}"
    for part in body.inside:
        if isinstance(part, Conditional):
            for number, branch in enumerate(part.branches):
                title = f"branch {number} [{part.label}]"
                yield from tree(branch, title, depth + 1)
            continue
        trips = "unknown" if part.trips is None else f"{part.trips:,}"
        yield from tree(part.body, f"loop, {trips} trips [{part.label}]", depth + 1)
        yield from tree(part.predicate, "predicate", depth + 2)


# Compiling for a device that is not there.


class Program(NamedTuple):
    """A jitted function and its arguments; arrays are `jax.ShapeDtypeStruct`s."""

    label: str
    function: jax.stages.Wrapped
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = {}


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


# The programs: public functions where that is enough. An entry that names a function
# that has gone is reported in the table.


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _rows(count: int, width: int) -> Any:
    return _shape((count, width), jnp.float32)


def _lists(count: int, k: int) -> Any:
    from dex_jax.neighbors import Neighbors

    ids, scores = jnp.int32, jnp.float32
    return jax.eval_shape(
        lambda: Neighbors(jnp.zeros((count, k), ids), jnp.zeros((count, k), scores))
    )


def _neighbor_lists(count: int, k: int) -> Any:
    from dex_jax.neighbors import NeighborLists

    lists = _lists(count, k)
    return NeighborLists(lists.ids, lists.scores, _shape((count,), jnp.float32))


def _both(size: Size) -> tuple[Any, Any]:
    return _rows(size.queries, size.width), _rows(size.gallery, size.width)


def _search(size: Size) -> list[Program]:
    """The programs of `nearest_neighbors`: rows are scaled first, then searched."""
    from dex_jax.neighbors._pool import pool_lists
    from dex_jax.neighbors._search import _search as search
    from dex_jax.neighbors._search import search_itself
    from dex_jax.neighbors._units import unit_set

    pool = _rows(size.queries + size.gallery, size.width)

    def joined(query: jax.Array, gallery: jax.Array, known: Any) -> Any:
        return pool_lists(query, gallery, known, width=61)

    known = _neighbor_lists(size.gallery, 61)
    options = {"k": 100, "precision": "highest"}
    return [
        Program("rows scaled", unit_set, (pool,)),
        Program("search, k 100", search, (*_both(size), None), options),
        Program(
            "pool in itself, k 61",
            search_itself,
            (pool, None),
            {"k": 61, "minimum": True},
        ),
        Program(
            "pool from the gallery's lists", jax.jit(joined), (*_both(size), known)
        ),
    ]


def _expand_steps(size: Size) -> list[Program]:
    from dex_jax.rerank import alpha_query_expansion, database_augmentation

    gallery = _rows(size.gallery, size.width)
    return [
        Program("alpha-QE", jax.jit(alpha_query_expansion), _both(size)),
        Program("DBA, k 10, lists made", jax.jit(database_augmentation), (gallery,)),
    ]


def _k_reciprocal(size: Size) -> list[Program]:
    """The programs of 60/30 beside the pool's lists, in sizes that such data need."""
    from dex_jax.rerank._k_reciprocal_jaccard import query_support
    from dex_jax.rerank._k_reciprocal_sets import Encoding, Members, encode, expand

    Q, N = size.queries, size.queries + size.gallery
    ids = _lists(N, 61).ids
    flags = _shape((N, 61), bool)
    extra = _shape((N, _EXTRA), jnp.int32)
    members = Members(flags, extra, _shape((), jnp.int32))
    encoding = Encoding(*_lists(N, 61 + _EXTRA))
    lists = _lists(Q, 30).ids
    return [
        Program("expand", expand, (ids,), {"half": 30, "extra": _EXTRA}),
        Program(
            "encode",
            encode,
            (_rows(N, size.width), _neighbor_lists(N, 61), members),
        ),
        Program("support", query_support, (encoding, lists), {"size": _SUPPORT}),
        Program("Jaccard and scores", *_jaccard(size)),
    ]


def _jaccard(size: Size) -> tuple[Any, tuple[Any, ...]]:
    from dex_jax.rerank._k_reciprocal import _Compare, _Own, _Whole
    from dex_jax.rerank._k_reciprocal_jaccard import Compared, Support
    from dex_jax.rerank._k_reciprocal_sets import Encoding
    from dex_jax.rerank._scan import Scan, best_scores

    Q, G = size.queries, size.gallery
    query, gallery = _both(size)
    number, support = _shape((), jnp.int32), _lists(Q, _SUPPORT)
    whole = _Whole(
        query,
        _shape((Q,), jnp.float32),
        Compared(
            Encoding(*_lists(Q + G, 61 + _EXTRA)),
            Support(support.ids, support.scores, number),
            None,
            number,
        ),
        None,
        _shape((), jnp.float32),
    )
    own = _Own(gallery, _lists(G, 30).ids)
    scan = Scan(own, whole, _Compare(Q + G), (Q, G), "gallery")
    return jax.jit(functools.partial(best_scores, top=100)), (scan,)


def _diffusion(size: Size) -> list[Program]:
    from dex_jax.rerank import diffusion

    return [
        Program(
            f"diffusion, {solver}, lists made",
            jax.jit(functools.partial(diffusion, solver=solver)),
            _both(size),
        )
        for solver in ("power", "cg")
    ]


def jaccard_trips(size: Size) -> str:
    """Counts on clustered data how often the loops of the Jaccard turn, 60/30."""
    from dex_jax.neighbors import form
    from dex_jax.neighbors._blocks import divide
    from dex_jax.rerank import _k_reciprocal_jaccard as jaccard
    from dex_jax.rerank._embeddings import read_pair
    from dex_jax.rerank._k_reciprocal import read_options, with_sizes

    embeddings = make(size)
    pair = read_pair(embeddings.query, embeddings.gallery)
    with form("cpu"):  # the same sets, sooner
        options = read_options(60, 30, 0.5, None, None)
        scan = with_sizes(pair, None, options, lambda scan: scan)
    used = np.sort(np.asarray(scan.whole.found.support.weights > 0).sum(axis=1))
    with form("wide"):
        tiles = divide(size.gallery, jaccard.tile_size(size.queries + size.gallery))
        queries = divide(len(used), jaccard._WIDE_QUERIES)
    starts = [
        min(i * queries.size, queries.rows - queries.size)
        for i in range(queries.number)
    ]
    trips = sum(
        -(-used[s : s + queries.size].max() // jaccard._WIDE_TRIP) for s in starts
    )
    return (
        f"Jaccard, 60/30, clustered data: {trips * tiles.number} trips in "
        f"{queries.number * tiles.number} loops; support mean {used.mean():.0f}, "
        f"most {used.max()}"
    )


# Slots of a row beyond its list, and of a query's mean encoding, on such data.
_EXTRA, _SUPPORT = 112, 1_792

PROGRAMS: dict[str, Callable[[Size], list[Program]]] = {
    "search": _search,
    "expand_steps": _expand_steps,
    "k_reciprocal": _k_reciprocal,
    "diffusion": _diffusion,
}


if __name__ == "__main__":
    main()
