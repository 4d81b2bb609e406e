"""Image files, decoded when they are asked for."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from dex_jax.data._decode import ImageError, decode, decode_bytes

_WORTH_A_BAR = 2_000

Item = TypeVar("Item")


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


class EncodedImages:
    """N image files kept elsewhere than in a folder; `[i]` decodes uint8 `[H, W, 3]`.

    Args:
        read: takes an index in `[0, N)`, returns the content of that file.
        names: of the images, for messages.
        place: where they are kept, for messages.
    """

    def __init__(self, read: Callable[[int], bytes], names: Sequence[str], place: str):
        self._read = read
        self._names = tuple(names)
        self._place = place

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        name = f"{self._place}: {self._names[index]}"
        return decode_bytes(self._read(int(index)), name)


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
        sizes: their sizes as `file_sizes` gives them.
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
            shown = show_progress(broken, len(healthy), "checking images")
            for i, fault in zip(healthy, shown, strict=True):
                if fault:
                    faults[i] = fault
    return faults


def show_progress(items: Iterable[Item], total: int, title: str) -> Iterable[Item]:
    """Passes items on behind a progress bar.

    Args:
        items: of any kind.
        total: how many there are; with few no bar is shown, as the pass would be over
            before the bar could be read.
        title: of the bar.
    """
    return track(
        items,
        title,
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
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return -1


def _fault(read: Callable[[], np.ndarray]) -> str:
    try:
        read()
    except ImageError as error:
        return error.fault
    except (OSError, ValueError):
        return "image cannot be decoded"
    return ""
