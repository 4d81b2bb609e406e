"""Reads the text of a compiled program and counts what it launches.

The rules of counting stand at the top of `compiled.py`.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
