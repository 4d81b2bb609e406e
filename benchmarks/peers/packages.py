"""Single files of the `fastreid` package: its own import asks for more than they do."""

import importlib.util
from pathlib import Path
from types import ModuleType


def fastreid_module(pattern: str) -> ModuleType:
    """Loads the file of `fastreid.evaluation` whose path matches a pattern.

    Raises:
        ImportError: the package, or the file in it, is not there.
    """
    package = importlib.util.find_spec("fastreid")
    if package is None or not package.submodule_search_locations:
        raise ImportError("fastreid is not installed")
    folder = Path(package.submodule_search_locations[0]) / "evaluation"
    found = sorted(folder.glob(pattern))
    if not found:
        raise ImportError(f"fastreid is installed without {pattern}")
    # Compiled modules must go by their own name.
    name = found[0].name.split(".")[0]
    spec = importlib.util.spec_from_file_location(name, found[0])
    if spec is None or spec.loader is None:
        raise ImportError(f"{found[0].name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
