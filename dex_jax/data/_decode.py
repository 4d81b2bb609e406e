"""Image files to pixels: the one place where pictures are read.

PIL is loaded by the first image: a training step imports this package for its
augmentation and decodes nothing.
"""

import functools
import io
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from dex_jax._checks import check_file

if TYPE_CHECKING:
    from PIL import Image, ImageFile

# The formats that are read, as Pillow calls them, and the endings of their files. The
# content alone decides which of them a file is. Pillow knows forty more, among them
# some that start another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
LIMIT = "DEX_JAX_MAX_PIXELS"
# Above this number Pillow itself warns.
_MOST_PIXELS = 89_478_485
# A header that claims more than a small picture has, in fewer bytes than a blank page
# takes, was altered or is a trap.
_SMALL, _PIXELS_A_BYTE = 1 << 24, 10_000
# The largest pixel that is read holds four channels of 16 bits.
_BYTES_A_PIXEL, _HEADER = 8, 1 << 24
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Tags of EXIF and TIFF.
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLES, _SIGNED = 274, 258, 262, 339, 2
# Each scan of a JPEG file draws over the whole picture and may take thirty bytes; those
# of cameras and programs are a dozen. Blocks in front of a picture are few.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_MOST_SCANS, _MOST_BLOCKS = 100, 1 << 16
# How an image `[H, W, 3]` is turned upright from each orientation that EXIF knows.
_UPRIGHT: dict[object, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}

Opener = tuple[
    Callable[[IO[bytes], str | bytes], "ImageFile.ImageFile"],
    Callable[[bytes], bool | str] | None,
]


def is_picture(name: str) -> bool:
    """Whether a file name has one of the endings, in large or small letters."""
    return name.lower().endswith(SUFFIXES)


class ImageError(ValueError):
    """An image file that gives no pixels.

    Args:
        name: of the file.
        fault: in a few words, the same for all files with this fault.
        why: what is known of it.
    """

    def __init__(self, name: str, fault: str, why: str = ""):
        self.fault = f"image {fault}"
        super().__init__(f"{name}: image file {fault}{f' ({why})' if why else ''}")


def decode(path: str | os.PathLike[str]) -> np.ndarray:
    """Decodes one image file: JPEG, PNG, BMP, GIF, PBM to PPM, TIFF or WebP.

    The content decides which of them it is, whatever its name. Of several pictures in
    one file the first is read. The picture is turned as its EXIF orientation says, and
    16-bit brightness v becomes round(v / 257); colours of 16 bits keep their upper 8.
    Transparency is left out: the colours behind it are those of the file. Colour
    profiles are not applied.

    Args:
        path: of the file.

    Returns:
        uint8 `[H, W, 3]`: red, green and blue, rows from top to bottom. Grey images
        and those with a palette become coloured ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, cut short, of another format, a folder, a pipe, or the
            disk does not give it; it has more pixels than the environment's
            DEX_JAX_MAX_PIXELS allows (89,478,485 by default; read from its header,
            before memory is taken); its numbers have no scale, as those of
            floating-point TIFF files. Names the file. Or `path` is no path.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "three_wide_two_high.png"
        ...     Image.new("RGB", (3, 2), (255, 128, 0)).save(path)
        ...     image = decode(path)
        >>> image.shape, image[0, 0].tolist()
        ((2, 3, 3), [255, 128, 0])
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path: expected that of an image file, got {path!r}")
    path = Path(path)
    try:
        content = _read(path)
    except FileNotFoundError:
        raise
    except OSError as error:  # no right to read it, a disk that fails
        why = error.strerror or str(error)
        raise ImageError(str(path), "cannot be read", why) from error
    return decode_bytes(content, str(path))


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ValueError(f"{path}: expected an image file, got a folder")
    size, most = check_file(path, "image file").stat().st_size, _most_pixels()
    if size > _BYTES_A_PIXEL * most + _HEADER:
        why = f"{size:,} bytes, more than {most:,} pixels need; {LIMIT} sets the limit"
        raise ImageError(str(path), "is too large", why)
    return path.read_bytes()


def decode_bytes(content: bytes, name: str) -> np.ndarray:
    """Decodes the content of an image file to uint8 `[H, W, 3]`.

    Raises:
        ImageError: as `decode`; gives `name`.
    """
    if not content:
        raise ImageError(name, "is empty")
    try:
        if content.startswith(b"GIF8"):
            _check_size(*_gif_size(content), len(content), name)
        with _open(content) as image:
            _check_size(*image.size, len(content), name)
            if content.startswith(b"\xff\xd8"):
                _check_scans(content)
            image.load()
            pixels = _pixels(image, name)
            turn = _UPRIGHT.get(_orientation(image))
    except ImageError:
        raise
    # Pillow raises whatever the code of a format stumbles over.
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ImageError(name, "cannot be decoded", why) from error
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _open(content: bytes) -> "ImageFile.ImageFile":
    """Reads the header of an image; `Image.open` would also warn of large ones."""
    for start, accepts in _openers():
        accepted = accepts is None or accepts(content[:16])
        if isinstance(accepted, str):
            raise ValueError(accepted)
        if accepted:
            # By a name Pillow would read the file again, and some TIFF files wrongly.
            return start(io.BytesIO(content), "")
    raise ValueError(f"its content is none of {', '.join(FORMATS)}")


def _check_size(width: int, height: int, size: int, name: str) -> None:
    """Refuses an image by the size that its header claims."""
    pixels, most = width * height, _most_pixels()
    shown = f"{width:,} x {height:,} pixels"
    if not pixels:
        raise ImageError(name, "holds no pixel", shown)
    if pixels > most:
        raise ImageError(name, "is too large", f"{shown}, {LIMIT} allows {most:,}")
    if pixels > max(_SMALL, _PIXELS_A_BYTE * size):
        raise ImageError(name, "is too large", f"{shown} in {size:,} bytes")


def _check_scans(content: bytes) -> None:
    """Refuses a JPEG file that takes far longer to decode than its size tells."""
    scans, at = 0, 2
    for _ in range(_MOST_BLOCKS):
        found = _MARKER.search(content, at)
        if not found or found[1] == b"\xd9":  # the end of the picture
            return
        scans += found[1] == b"\xda"
        if scans > _MOST_SCANS:
            raise ValueError(f"more than {_MOST_SCANS} scans")
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise ValueError(f"more than {_MOST_BLOCKS} segments")


def _gif_size(content: bytes) -> tuple[int, int]:
    """The size that holds a GIF file's first picture, which Pillow fills on opening."""
    width, height, flags = struct.unpack("<HHB", content[6:11])
    at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)  # behind the palette
    extension = False  # made of blocks with their length in front
    for _ in range(_MOST_BLOCKS):
        if extension:
            extension = bool(content[at])
            at += 1 + content[at]
        elif content[at] == ord("!"):
            extension = True
            at += 2
        elif content[at] == ord(","):
            break
        else:
            at += 1
    else:
        raise ValueError(f"no picture in its first {_MOST_BLOCKS} blocks")
    left, top, across, down = struct.unpack("<4H", content[at + 1 : at + 9])
    return max(width, left + across), max(height, top + down)


@functools.cache
def _openers() -> tuple[Opener, ...]:
    from PIL import Image

    Image.init()
    return tuple(Image.OPEN[name] for name in FORMATS)


def _pixels(image: "ImageFile.ImageFile", name: str) -> np.ndarray:
    """The pixels of a loaded image, uint8 `[H, W, 3]`, not yet turned."""
    mode, tags = image.mode, getattr(image, "tag_v2", {})
    if mode in _EIGHT_BITS and tags.get(_SAMPLES, (1,))[0] != _SIGNED:
        # Pillow warns where it drops some forms of transparency itself.
        image.info.pop("transparency", None)
        return np.asarray(image if mode == "RGB" else image.convert("RGB"))
    # Of a PPM file with more than 8 bits, "I" goes up to 65535.
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        top = (1 << tags.get(_BITS, (16,))[0]) - 1
        values = np.clip(np.asarray(image), 0, top).astype(np.uint32)  # [H, W]
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero
            values = top - values
        grey = ((values * 510 + top) // (2 * top)).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    fault = f"has no scale that leads to 8 bits a channel (mode {mode})"
    raise ImageError(name, fault, "expected 8 or 16 bits without a sign")


def _orientation(image: "Image.Image") -> object:
    """What EXIF or XMP says, 1 for upright; damaged notes say nothing."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _most_pixels() -> int:
    given = os.environ.get(LIMIT, "")
    if not given:
        return _MOST_PIXELS
    plain = given.isdecimal() and given.isascii() and len(given) < 16
    limit = int(given) if plain else 0
    if not limit:
        raise ValueError(f"{LIMIT}: expected a number of pixels, got {given!r}")
    from PIL import Image

    # Pillow's own limit would otherwise hold for some formats.
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    return limit
