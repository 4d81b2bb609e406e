"""Pictures that are refused: by size, by format, by what they are not."""

import os
import resource
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from dex_jax.data import decode
from dex_jax.data._decode import decode_bytes
from tests.data.fake_sets import encoded

PIXELS = np.zeros((2, 3, 3), np.uint8)


def test_no_program_is_started(tmp_path, monkeypatch):
    """PostScript would start Ghostscript, which runs what the file says."""
    mark = tmp_path / "started"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "car.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(ValueError, match=r"car\.jpg: .* is none of JPEG, PNG"):
        decode(path)
    assert not mark.exists()


@pytest.mark.parametrize("form", ["DDS", "ICO", "PCX", "SGI", "TGA", "JPEG2000"])
def test_other_formats_are_refused(form):
    if form == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    content = encoded(Image.new("RGB", (16, 16)), form)
    with pytest.raises(ValueError, match="a: image file cannot be decoded"):
        decode_bytes(content, "a")


def header_alone(width: int, height: int) -> dict[str, bytes]:
    """Files that claim a size; none holds as many pixels."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png += size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    png += struct.pack(">I", 4) + b"IDATxxxx" + bytes(4)
    bmp = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    gif = bytearray(encoded(Image.new("L", (1, 1)), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    ppm = f"P6 {width} {height} 255\n".encode() + bytes(30)
    return {"png": png, "bmp": bytes(bmp), "gif": bytes(gif), "ppm": ppm}


@pytest.mark.parametrize("form", ["png", "bmp", "gif", "ppm"])
def test_a_size_is_refused_before_memory_is_taken(form, monkeypatch):
    content = header_alone(13_000, 13_000)[form]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(
            ValueError, match=r"a: .* too large \(13,000 x 13,000 pixels, DEX_JAX_MAX"
        ):
            decode_bytes(content, "a")
    assert not said
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB
    # Within the limit the few bytes of the file still cannot hold the picture.
    monkeypatch.setenv("DEX_JAX_MAX_PIXELS", "200000000")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with pytest.raises(ValueError, match=r"a: .* pixels in [\d,]+ bytes\)"):
        decode_bytes(content, "a")


@pytest.mark.parametrize("corner", [(13_000, 13_000), (65_535, 65_535)])
def test_a_frame_beyond_the_canvas_counts(corner):
    """Pillow fills it on opening where it says that it is cleared afterwards."""
    cleared = b"!\xf9\x04\x08\0\0\0\0"
    content = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + cleared
    content += b"," + struct.pack("<4HB", 0, 0, *corner, 0) + b"\x02\x02\x44\x01\0;"
    with pytest.raises(ValueError, match=r"a: .* too large .* DEX_JAX_MAX_PIXELS"):
        decode_bytes(content, "a")


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    monkeypatch.setenv("DEX_JAX_MAX_PIXELS", "6")
    assert decode(path).shape == (2, 3, 3)
    monkeypatch.setenv("DEX_JAX_MAX_PIXELS", "5")
    with pytest.raises(ValueError, match=r"a\.png: .* DEX_JAX_MAX_PIXELS allows 5"):
        decode(path)
    os.truncate(path, 1 << 30)  # a sparse file, which would be read whole
    with pytest.raises(ValueError, match=r"a\.png: .* too large \(1,073,741,824 bytes"):
        decode(path)
    for text in ("0", "-1", "many", "1e9", "9" * 40):
        monkeypatch.setenv("DEX_JAX_MAX_PIXELS", text)
        with pytest.raises(ValueError, match="DEX_JAX_MAX_PIXELS: expected a number"):
            decode(path)


def test_what_is_no_plain_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ValueError, match="pipe, socket or device"):
            decode(path)
    with pytest.raises(ValueError, match="names no image file"):
        decode("a\0.jpg")


def test_what_the_disk_does_not_give(tmp_path):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(ValueError, match=r"loop\.jpg: image file cannot be read \("):
        decode(tmp_path / "loop.jpg")
    with pytest.raises(ValueError, match=r"cannot be read \(File name too long"):
        decode(tmp_path / f"{'a' * 300}.jpg")


def test_a_jpeg_of_very_many_scans_is_refused():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    content = encoded(image, "JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    few, many = (content[:-2] + scan * n + content[-2:] for n in (50, 100))
    np.testing.assert_array_equal(decode_bytes(few, "a"), decode_bytes(content, "a"))
    with pytest.raises(ValueError, match=r"a: .*more than 100 scans"):
        decode_bytes(many, "a")
    # What follows the picture, as the film of a telephone does, is not counted.
    assert decode_bytes(content + scan * 200, "a").shape == (8, 8, 3)
    with pytest.raises(ValueError, match=r"a: .*more than 65536 segments"):
        decode_bytes(content[:2] + b"\xff\xfe\0\2" * 70_000 + content[2:], "a")


@pytest.mark.parametrize("block", [b"\0", b"!\xf9\1\0\0"])
def test_a_gif_without_a_picture_is_given_up(block):
    header = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0)
    with pytest.raises(ValueError, match="no picture in its first 65536 blocks"):
        decode_bytes(header + block * 70_000, "a")
