"""What is said where an extra is not installed; `alone.py` tries the real thing."""

import subprocess
import sys
from pathlib import Path

import pytest

from dex_jax._checks import EXTRA_MODULES, missing_extra, require

ROOT = Path(__file__).parents[1]
# A module that each part imports, and the extra that the part names.
PARTS = {
    "data": ("rich", "data"),
    "pipeline": ("rich", "data"),
    "procedural": ("PIL", "data"),
    "models": ("flax", "train"),
    "training": ("optax", "train"),
    "runs": ("orbax", "train"),
    "evaluation": ("tensorboardX", "train"),
    "report": ("matplotlib", "report"),
}
PROGRAMS = {
    "train.py": ("absl", "flax", "orbax", "PIL"),
    "evaluate.py": ("rich", "flax", "jinja2"),
}


def run_without(module: str, code: str) -> subprocess.CompletedProcess:
    """Runs code in a process that cannot import a module."""
    hidden = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = staticmethod(\n"
        f"    lambda name, *rest: None if name == {module!r} else find(name, *rest)\n"
        ")\n"
    )
    return subprocess.run(
        [sys.executable, "-c", hidden + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_names_its_extra(part: str):
    module, extra = PARTS[part]
    done = run_without(module, f"import dex_jax.{part}")
    last = done.stderr.splitlines()[-1]
    said = f"{module} is not installed; pip install 'dex_jax[{extra}]' brings it"
    assert last == f"ModuleNotFoundError: {said}"


@pytest.mark.parametrize(
    ("program", "module"), [(p, m) for p, modules in PROGRAMS.items() for m in modules]
)
def test_a_program_says_it_in_one_line(program: str, module: str):
    code = (
        f"import runpy; sys.argv = [{program!r}, '--config=configs/demo.py']\n"
        f"runpy.run_path({program!r}, run_name='__main__')"
    )
    done = run_without(module, code)
    assert done.returncode not in (0, None)
    (line,) = done.stderr.splitlines()
    extra = "train" if program == "train.py" else "report"
    assert f"{module} is missing; pip install 'dex_jax[{extra}]' brings it" in line


def test_the_command_line_says_it_in_one_line():
    code = "import runpy; runpy.run_module('dex_jax', run_name='__main__')"
    done = run_without("PIL", code)
    assert done.returncode == 1
    said = "error: PIL is not installed; pip install 'dex_jax[data]' brings it\n"
    assert done.stderr == said


def test_only_modules_of_extras_are_explained():
    error = ModuleNotFoundError("No module named 'mine'", name="mine")
    assert missing_extra(error, "train") is error
    assert missing_extra(ModuleNotFoundError("odd"), "train").args == ("odd",)
    # One that is there and broken would not be mended by installing it.
    broken = ModuleNotFoundError("No module named 'PIL._imaging'", name="PIL._imaging")
    assert missing_extra(broken, "data") is broken
    require("jax", extra="train")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        require("jax", "no_such_thing", extra="train")
    assert "jax" not in EXTRA_MODULES and "numpy" not in EXTRA_MODULES


def test_a_missing_extra_does_not_end_who_looks_at_the_package():
    code = """
import dex_jax, inspect, pydoc
assert not hasattr(dex_jax, "models") and not hasattr(dex_jax, "__main__")
inspect.getmembers(dex_jax)
pydoc.render_doc(dex_jax)
try:
    dex_jax.models
except AttributeError as error:
    print(error)
"""
    done = run_without("flax", code)
    assert done.returncode == 0, done.stderr
    said = "flax is not installed; pip install 'dex_jax[train]' brings it\n"
    assert done.stdout == said
