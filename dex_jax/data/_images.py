"""Image files, decoded when they are asked for.

PIL is loaded by the first image: a training step imports this package for its
augmentation and decodes nothing.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

_WORTH_A_BAR = 2_000


class ImageFiles:
    """N image files under one folder; `files[i]` decodes uint8 `[H, W, 3]`.

    Args:
        root: the folder.
        names: the paths of the images relative to it.
    """

    def __init__(self, root: str | Path, names: Sequence[str]):
        self.root = Path(root)
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return decode(self.root / self.names[index])

    def path(self, index: int) -> Path:
        """Returns where image `index` lies."""
        return self.root / self.names[index]


def decode(path: Path) -> np.ndarray:
    """Decodes one image file to uint8 `[H, W, 3]`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, cut short or no image; names the file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image file") from None
    return decode_bytes(content, str(path))


def decode_bytes(content: bytes, name: str) -> np.ndarray:
    """Decodes the content of an image file to uint8 `[H, W, 3]`.

    Raises:
        ValueError: it is empty, cut short or no image; gives `name`.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        fault = f"cannot be decoded ({error})" if content else "is empty"
        raise ValueError(f"{name}: image file {fault}") from error


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Scales uint8 `[H, W, 3]` to `[size, size, 3]`, bilinear with antialiasing."""
    if image.shape[:2] == (size, size):
        return image
    from PIL import Image

    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size, size), bilinear))


def find_faults(
    files: ImageFiles, sizes: np.ndarray, *, decode_all: bool
) -> dict[int, str]:
    """Looks for files that are absent or empty and, if asked, for undecodable ones.

    Args:
        files: N images.
        sizes: their sizes as `file_sizes` tells them.
        decode_all: decode every image, which alone finds a file that was cut short.

    Returns:
        The fault of each bad image, by its index.
    """
    faults = {
        i: "file not found" if size < 0 else "file is empty"
        for i, size in enumerate(sizes.tolist())
        if size <= 0
    }
    if decode_all:
        healthy = [i for i in range(len(files)) if i not in faults]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            broken = pool.map(lambda i: _fault(lambda: files[i]), healthy)
            for i, fault in zip(healthy, _shown(broken, len(healthy)), strict=True):
                if fault:
                    faults[i] = fault
    return faults


def _shown(results: Iterable[str], total: int) -> Iterable[str]:
    # A pass over a small set is over before a bar could be read.
    return track(
        results,
        "checking images",
        total,
        console=Console(stderr=True),
        disable=total < _WORTH_A_BAR,
    )


def file_sizes(files: ImageFiles) -> np.ndarray:
    """Returns the size of each file in bytes, int64 `[N]`; -1 where there is none."""
    return np.array([_size(files.path(i)) for i in range(len(files))], np.int64)


def fingerprint(*parts: bytes) -> str:
    """Returns a short hash that identifies some content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _fault(read: Callable[[], np.ndarray]) -> str:
    try:
        read()
    except (OSError, ValueError):
        return "image cannot be decoded"
    return ""
