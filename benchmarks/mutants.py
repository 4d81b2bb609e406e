"""Wrong lines on purpose: how many of them do the tests notice?

    python -m benchmarks.mutants --number 200 --seed 0 --jobs 2 --out mutants.json
    python -m benchmarks.mutants --only losses,metrics --number 20

Each mutant is a copy of the package with one changed expression. The tests that mirror
the changed module run first, then those of its folder; a mutant that all of them pass
has survived. The copies lie alone: what stands beside the project (golden vectors,
real images) is not there, as for a stranger. Written here, since the well-kept tools
either leave decorated functions alone, which most kernels are, or know one test
command for all modules.
"""

import argparse
import ast
import concurrent.futures
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PARTS = (
    "rerank",
    "neighbors",
    "metrics",
    "losses",
    "models",
    "training",
    "runs",
    "evaluation",
    "report",
)
COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}  # fmt: skip
# Calls that are easily taken for one another.
TWINS = {
    "max": "min", "min": "max", "maximum": "minimum", "minimum": "maximum",
    "mean": "sum", "sum": "mean", "argmax": "argmin", "argmin": "argmax",
    "any": "all", "all": "any", "cummax": "cummin", "cummin": "cummax",
    "floor": "ceil", "ceil": "floor", "zeros": "ones", "ones": "zeros",
    "sorted": "list", "segment_max": "segment_min", "segment_min": "segment_max",
    "left": "right", "right": "left",
}  # fmt: skip


class Mutant(NamedTuple):
    """A module with one wrong expression."""

    path: str  # below the project's folder
    line: int
    before: str
    after: str
    source: str


class Outcome(NamedTuple):
    """What the tests said of a mutant: "noticed", "survived" or "too slow"."""

    mutant: Mutant
    kind: str
    seconds: float


class _Places(ast.NodeVisitor):
    """Collects the expressions of a module that may be changed."""

    def __init__(self):
        self.found: list[ast.expr] = []

    def generic_visit(self, node: ast.AST) -> None:
        # Words of errors, annotations and what only type checkers read say nothing of
        # what a program computes.
        if isinstance(node, ast.Raise | ast.JoinedStr):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            for statement in (*node.decorator_list, *node.body):
                self.visit(statement)
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.visit(node.value)
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.expr) and _changed(node) is not None:
            self.found.append(node)
        super().generic_visit(node)


def _changed(node: ast.expr) -> ast.expr | None:
    """The wrong expression for a right one, None where there is none."""
    copy = deepcopy(node)
    if isinstance(copy, ast.Compare) and len(copy.ops) == 1:
        copy.ops = [COMPARE[type(copy.ops[0])]()]
    elif isinstance(copy, ast.BinOp) and type(copy.op) in ARITHMETIC:
        copy.op = ARITHMETIC[type(copy.op)]()
    elif isinstance(copy, ast.BoolOp):
        copy.op = ast.Or() if isinstance(copy.op, ast.And) else ast.And()
    elif isinstance(copy, ast.UnaryOp) and isinstance(copy.op, ast.Not | ast.USub):
        copy = copy.operand
    elif isinstance(copy, ast.IfExp):
        copy.body, copy.orelse = copy.orelse, copy.body
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, bool):
        copy.value = not copy.value
    elif isinstance(copy, ast.Constant) and isinstance(copy.value, int | float):
        copy.value += 1
    elif isinstance(copy, ast.Attribute) and copy.attr in TWINS:
        copy.attr = TWINS[copy.attr]
    elif isinstance(copy, ast.Name) and copy.id in TWINS:
        copy.id = TWINS[copy.id]
    elif isinstance(copy, ast.Call) and copy.keywords:
        copy.keywords = copy.keywords[:-1]
    else:
        return None
    return copy


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yields every mutant of a module, in the order of its lines."""
    source = path.read_text()
    places = _Places()
    places.visit(ast.parse(source))
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    content = source.encode()
    for node in places.found:
        wrong = _changed(node)
        if wrong is None or node.end_lineno is None or node.end_col_offset is None:
            continue
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = f"({ast.unparse(wrong)})"
        if isinstance(node, ast.Attribute | ast.Name | ast.Constant):
            text = text[1:-1]
        changed = (content[:begin] + text.encode() + content[end:]).decode()
        try:
            compile(changed, str(path), "exec")
        except SyntaxError:  # such as the name of a keyword
            continue
        yield Mutant(
            path.relative_to(ROOT).as_posix(),
            node.lineno,
            content[begin:end].decode(),
            text,
            changed,
        )


def sample(parts: list[str], number: int, seed: int) -> list[Mutant]:
    """Takes mutants at random, as many of each part as of any other."""
    rng = random.Random(seed)
    chosen = []
    for place, part in enumerate(parts):
        found = ROOT / "dex_jax" / part
        files = sorted(found.glob("*.py")) if found.is_dir() else []
        files = files or [found.with_suffix(".py")]
        every = [m for file in files for m in mutants_of(file)]
        share = number // len(parts) + (place < number % len(parts))
        chosen += rng.sample(every, min(share, len(every)))
    return chosen


def mirrors(path: str) -> list[list[str]]:
    """The tests of a module, nearest first: groups that run one after the other."""
    _, part, *rest = Path(path).with_suffix("").parts
    name = rest[0].strip("_") if rest else part
    folder = ROOT / "tests" / part
    stem = name.split("_")[0]
    groups = []
    if folder.is_dir():
        exact = sorted(folder.glob(f"test_{name}.py"))
        near = sorted({*folder.glob(f"test_{stem}*.py")} - {*exact})
        groups = [exact, near, sorted({*folder.glob("test_*.py")} - {*exact, *near})]
    else:
        groups = [sorted((ROOT / "tests").glob(f"test_{part}*.py"))]
    programs = {
        "training": ["training", "runs", "test_train.py"],
        "runs": ["test_train.py"],
        "evaluation": ["report", "test_evaluate.py"],
        "report": ["test_evaluate.py"],
        "losses": ["training"],
        "neighbors": ["rerank"],
    }
    groups += [[ROOT / "tests" / name] for name in programs.get(part, [])]
    return [
        [test.relative_to(ROOT).as_posix() for test in group]
        for group in groups
        if group
    ]


def copy_project(folder: Path) -> None:
    """Copies what belongs to the project, and nothing that lies beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)


def judge(mutant: Mutant, folder: Path, limit: float) -> Outcome:
    """Runs the tests of a mutant until one of them fails."""
    path = folder / mutant.path
    right = path.read_text()
    path.write_text(mutant.source)
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        for group in mirrors(mutant.path):
            left = limit - (time.monotonic() - begin)
            command = [sys.executable, "-m", "pytest", "-xq", "-n0", *group]
            command += ["-p", "no:cacheprovider"]
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                timeout=max(left, 1),
                check=False,
            )
            if done.returncode not in (0, 5):  # 5: no test is in there
                return Outcome(mutant, "noticed", time.monotonic() - begin)
    except subprocess.TimeoutExpired:
        return Outcome(mutant, "too slow", time.monotonic() - begin)
    finally:
        path.write_text(right)
    return Outcome(mutant, "survived", time.monotonic() - begin)


def run(mutants: list[Mutant], jobs: int, limit: float) -> Iterator[Outcome]:
    """Judges mutants in several copies of the project at once."""
    with tempfile.TemporaryDirectory() as folder:
        free = [Path(folder) / str(job) / "project" for job in range(jobs)]
        for copy in free:
            copy_project(copy)

        def one(mutant: Mutant) -> Outcome:
            copy = free.pop()
            try:
                return judge(mutant, copy, limit)
            finally:
                free.append(copy)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, mutants)


def summary(outcomes: list[Outcome]) -> Iterator[str]:
    """Yields a table of the parts, then the mutants that nobody noticed."""
    counts = Counter((Path(o.mutant.path).parts[1], o.kind) for o in outcomes)
    yield "| part | mutants | noticed | too slow | survived |"
    yield "| --- | --- | --- | --- | --- |"
    for part in dict.fromkeys(Path(o.mutant.path).parts[1] for o in outcomes):
        kinds = [counts[part, kind] for kind in ("noticed", "too slow", "survived")]
        yield f"| {part} | {sum(kinds)} | {' | '.join(map(str, kinds))} |"
    caught = sum(o.kind != "survived" for o in outcomes)
    yield f"{caught} of {len(outcomes)} noticed: {caught / len(outcomes):.1%}"
    for outcome in outcomes:
        if outcome.kind == "survived":
            mutant = outcome.mutant
            yield f"{mutant.path}:{mutant.line}: {mutant.before} -> {mutant.after}"


def main() -> None:
    """Reads the flags, judges the mutants, prints what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900, help="seconds a mutant")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--out", type=Path, help="JSON of all outcomes")
    flags = parser.parse_args()
    chosen = sample(flags.only.split(","), flags.number, flags.seed)
    outcomes = []
    for outcome in run(chosen, flags.jobs, flags.limit):
        outcomes.append(outcome)
        mutant = outcome.mutant
        print(
            f"{len(outcomes)}/{len(chosen)} {outcome.kind} in {outcome.seconds:.0f} s: "
            f"{mutant.path}:{mutant.line}: {mutant.before!r} -> {mutant.after!r}",
            flush=True,
        )
        if flags.out:
            found = [{**o._asdict(), "mutant": o.mutant[:4]} for o in outcomes]
            flags.out.write_text(json.dumps(found, indent=1))
    print("\n".join(summary(outcomes)))


if __name__ == "__main__":
    main()
