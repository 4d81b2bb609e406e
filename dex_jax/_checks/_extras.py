"""Modules that only extras of the distribution bring."""

import importlib.util

# Modules that extras bring; the base install has jax and numpy.
EXTRA_MODULES = frozenset(
    {
        "PIL",
        "absl",
        "array_record",
        "flax",
        "jinja2",
        "matplotlib",
        "ml_collections",
        "optax",
        "orbax",
        "pyarrow",
        "rich",
        "safetensors",
        "tensorboardX",
        "tensorflow_datasets",
    }
)


def missing_extra(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Says which extra brings a module that could not be imported.

    Args:
        error: of the import.
        extra: of the distribution, such as "train", that brings all that is needed.

    Returns:
        One line that names the module and the command to give; the error itself where
        no extra has that module.

    Example:
        >>> error = ModuleNotFoundError("No module named 'mine'", name="mine")
        >>> missing_extra(error, "train") is error  # no extra has it
        True
    """
    root = (error.name or "").partition(".")[0]
    # A module that is installed but fails to import is not mended by the extra.
    if root not in EXTRA_MODULES or importlib.util.find_spec(root) is not None:
        return error
    return ModuleNotFoundError(
        f"{root} is not installed; pip install 'dex_jax[{extra}]' brings it",
        name=error.name,
    )


def require(*modules: str, extra: str) -> None:
    """Checks that modules which are imported only on use are installed.

    Raises:
        ModuleNotFoundError: one is not; says that `extra` brings it.

    Example:
        >>> require("jax", "numpy", extra="train")
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            error = ModuleNotFoundError(f"No module named {module!r}", name=module)
            raise missing_extra(error, extra)
