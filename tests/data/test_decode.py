import os
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import ReidSplit, decode
from dex_jax.data._decode import FORMATS, SUFFIXES, decode_bytes, is_picture
from dex_jax.data._images import ImageFiles
from tests.data import fake_sets
from tests.data.fake_sets import encoded

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["word", "path"])
def test_decode_returns_the_pixels_as_they_are(kind, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = decode(kind(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, PIXELS)


def test_decode_makes_three_channels_of_any_image(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        decode(tmp_path / "grey.png"), PIXELS[..., :1].repeat(3, axis=2)
    )
    alpha = np.full((2, 3, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(decode(tmp_path / "rgba.png"), PIXELS)
    palette = Image.fromarray(np.array([[1, 0, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "palette.png")
    assert decode(tmp_path / "palette.png").tolist() == [
        [[40, 50, 60], [10, 20, 30], [40, 50, 60]]
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"a\.jpg: image file is empty"),
        (fake_sets.PIXELS[:300], r"a\.jpg: image file cannot be decoded"),
        (b"words, no image", r"a\.jpg: image file cannot be decoded"),
    ],
    ids=["empty", "cut short", "no image"],
)
def test_decode_names_a_file_that_is_no_image(content, match, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        decode(tmp_path / "a.jpg")


def test_decode_refuses_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.jpg: no such image file"):
        decode(os.fspath(tmp_path / "b.jpg"))
    with pytest.raises(ValueError, match="expected an image file, got a folder"):
        decode(tmp_path)
    number: Any = 7
    with pytest.raises(ValueError, match=r"path: expected that of .* file, got 7"):
        decode(number)


GREY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)  # H 2, W 3
DEEP = GREY.astype(np.uint16) * 257


def grey(values: np.ndarray) -> np.ndarray:
    return values[..., None].repeat(3, axis=2)


def red_and_blue() -> Image.Image:
    return Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))


def tiff(values: bytes, *, bits: int, photometric: int = 1, kind: int = 1) -> bytes:
    """A TIFF file of one row of grey values, little end first."""
    width = 8 * len(values) // bits
    tags = [
        (256, 3, width),
        (257, 3, 1),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 1),
        (279, 4, len(values)),
        (339, 3, kind),
    ]
    values += bytes(len(values) % 2)
    entries = b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(values))
    return start + values + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_brightness_is_scaled(form):
    image = decode_bytes(encoded(Image.fromarray(DEEP), form), "a")
    np.testing.assert_array_equal(image, grey(GREY))
    # What lies between two steps goes to the nearer one.
    near = np.array([[128, 129, 65535 - 128, 65535 - 129]], np.uint16)
    image = decode_bytes(encoded(Image.fromarray(near), form), "a")
    assert image[0, :, 0].tolist() == [0, 1, 255, 254]


def test_a_16_bit_ramp_keeps_its_mean():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert decode_bytes(encoded(Image.fromarray(ramp), "PNG"), "a").mean() == 127.5


def test_other_orders_and_depths_of_grey():
    big = DEEP.astype(">u2")
    image = Image.frombytes("I;16B", (3, 2), big.tobytes())
    np.testing.assert_array_equal(decode_bytes(encoded(image, "TIFF"), "a"), grey(GREY))
    white_is_zero = tiff(DEEP[:1].tobytes(), bits=16, photometric=0)
    assert decode_bytes(white_is_zero, "a")[0, :, 0].tolist() == [255, 254, 128]
    # 0, 2048, 4095, 0 of 12 bits
    twelve = tiff(bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x00]), bits=12)
    assert decode_bytes(twelve, "a")[0, :, 0].tolist() == [0, 128, 255, 0]


def test_16_bit_colours_keep_their_upper_half():
    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
        )

    row = b"\0" + struct.pack(">6H", 0, 257, 65535, 32767, 32768, 514)
    content = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    )
    content += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert decode_bytes(content, "a").tolist() == [[[0, 1, 255], [127, 128, 2]]]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", [[255, 255, 255], [0, 0, 0]]),
        ("L", [[76, 76, 76], [29, 29, 29]]),
        ("LA", [[76, 76, 76], [29, 29, 29]]),
        ("P", [[255, 0, 0], [0, 0, 255]]),
        ("RGB", [[255, 0, 0], [0, 0, 255]]),
        ("RGBA", [[255, 0, 0], [0, 0, 255]]),
    ],
)
def test_modes(mode, expected):
    image = red_and_blue()
    if mode == "1":
        image = Image.fromarray(np.array([[True, False]]))
    content = encoded(image.convert(mode), "PNG")
    assert decode_bytes(content, "a")[0].tolist() == expected


def test_cmyk_and_ycbcr():
    flat = np.full((16, 16, 3), (200, 80, 40), np.uint8)
    for mode in ("CMYK", "YCbCr", "L"):
        image = Image.fromarray(flat).convert(mode)
        found = decode_bytes(encoded(image, "JPEG", quality=100), "a").astype(int)
        wanted = np.asarray(image.convert("RGB")).astype(int)
        assert abs(found - wanted).max() <= 3, mode
    tinted = Image.fromarray(flat).convert("CMYK")
    found = decode_bytes(encoded(tinted, "TIFF"), "a").astype(int)
    assert abs(found - flat.astype(int)).max() <= 1


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_left_out(alpha):
    image = red_and_blue()
    image.putalpha(alpha)
    for form, options in (
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True, "exact": True}),
    ):
        content = encoded(image, form, **options)
        assert decode_bytes(content, "a")[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    palette = red_and_blue().quantize(2)
    for transparency in (0, bytes([alpha, 255])):
        content = encoded(palette, "PNG", transparency=transparency)
        assert decode_bytes(content, "a")[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    for mode, key in (("L", 76), ("RGB", (255, 0, 0))):
        content = encoded(red_and_blue().convert(mode), "PNG", transparency=key)
        wanted = np.asarray(red_and_blue().convert(mode).convert("RGB"))
        np.testing.assert_array_equal(decode_bytes(content, "a"), wanted)


# What a file of each orientation holds, made of the upright picture. EXIF says which
# side of the picture its first row and its first column are.
STORED = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.transpose(1, 0, 2),  # left, top
    6: lambda a: a.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", list(STORED))
def test_orientations_are_turned(form, orientation):
    blocks = np.kron(PIXELS, np.ones((16, 16, 1), np.uint8))  # JPEG blurs single ones
    stored = STORED[orientation](blocks)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    options |= {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    content = encoded(
        Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options
    )
    image = decode_bytes(content, "a")
    assert image.shape == blocks.shape
    worst = abs(image.astype(int) - blocks.astype(int)).max()
    assert worst <= (4 if form == "JPEG" else 0)
    assert image.flags.c_contiguous


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04bad\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
        bytes(range(256)),
    ],
    ids=["none", "no more", "cut", "a word", "orientation 99", "noise"],
)
def test_damaged_exif_leaves_the_picture_as_it_is(exif):
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode_bytes(content, "a"), PIXELS)


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image.fromarray(np.zeros((2, 2), np.float32)), "F"),
        (Image.fromarray(np.zeros((2, 2), np.int32)), "I"),
        (Image.new("LAB", (2, 2)), "LAB"),
    ],
)
def test_what_has_no_scale_is_refused_by_name(image, mode, tmp_path):
    path = tmp_path / "heat.tif"
    image.save(path)
    with pytest.raises(ValueError, match=rf"heat\.tif: .* no scale .*\(mode {mode}\)"):
        decode(path)


def test_signed_numbers_have_no_scale():
    with pytest.raises(ValueError, match=r"a: .* no scale .*\(mode I\)"):
        decode_bytes(tiff(DEEP[:1].tobytes(), bits=16, kind=2), "a")


def test_the_first_of_several_pictures_is_read():
    other = Image.fromarray(255 - PIXELS)
    for form, options in (("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        image = Image.fromarray(PIXELS)
        content = encoded(image, form, save_all=True, append_images=[other], **options)
        np.testing.assert_array_equal(decode_bytes(content, "a"), PIXELS)
    # Phones write two pictures of one scene into one JPEG file.
    pair = encoded(
        Image.new("RGB", (8, 4)), "MPO", save_all=True, append_images=[other]
    )
    assert decode_bytes(pair, "a").shape == (4, 8, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_whatever_the_name(form, tmp_path):
    path = tmp_path / "a.xyz"
    path.write_bytes(encoded(Image.new("RGB", (3, 2), (255, 255, 255)), form))
    assert decode(path).tolist() == np.full((2, 3, 3), 255).tolist()


def test_endings_are_those_of_the_formats():
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} == set(FORMATS)
    assert is_picture("A.JPG") and is_picture("a.b.Png") and not is_picture("a.jpg.txt")


def test_a_split_reads_its_files_the_same_way(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    files = ImageFiles(tmp_path, ["a.png"])
    split = ReidSplit(files, ("a.png",), np.array([1]))
    np.testing.assert_array_equal(split.images[0], grey(GREY))


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_read_from_its_content_alone(mode, orientation, tmp_path):
    """By its name Pillow maps a file without compression into a turned shape."""
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(0, 2**16, (4, 6, 4), np.uint16)
    grey = values[..., 0] if mode == "I;16" else (values // 257).astype(np.uint8)
    image = Image.fromarray(grey[..., 0] if mode == "L" else grey)
    assert image.mode == mode
    image.save(path)
    upright = decode(path)
    image.save(path, tiffinfo={274: orientation})
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright[::-1].swapaxes(0, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright.swapaxes(0, 1)[::-1],
    }
    np.testing.assert_array_equal(decode(path), turned[orientation])


def test_eight_bits_with_a_sign_have_no_scale():
    image = Image.fromarray(np.zeros((2, 2), np.uint8))
    content = encoded(image, "TIFF", tiffinfo={339: 2})
    with pytest.raises(ValueError, match=r"a: .* no scale .*without a sign"):
        decode_bytes(content, "a")
