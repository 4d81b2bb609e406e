"""Every example in a docstring runs and says what it gives."""

import doctest
import importlib
import pkgutil

import pytest

import dex_jax

# Examples show few digits.
pytestmark = pytest.mark.usefixtures("quick_programs")

MODULES = [
    module.name
    for module in pkgutil.walk_packages(dex_jax.__path__, "dex_jax.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
