"""Tables that nobody should trust."""

import numpy as np
import pytest
from PIL import Image

from dex_jax.data import load


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")

    def write(rows):
        path = tmp_path / "cars.csv"
        path.write_text("\n".join(["path,split,identity", *rows]))
        return path

    return write


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\x.png", "\\\\host\\x.png"]
)
def test_no_path_leads_elsewhere(write, name):
    with pytest.raises(ValueError, match=r"absolute path|leaves the image root"):
        load("manifest", root=write([f"{name},query,1"]), on_bad_image="later")


def test_a_zero_byte_in_a_name(write):
    with pytest.raises(ValueError, match=r"file not found|not a CSV line"):
        load("manifest", root=write(["a\0.png,query,1"]))


def test_a_field_without_end(write):
    with pytest.raises(ValueError, match="line 2: not a CSV line: 'field larger than"):
        load("manifest", root=write(["a.png,query," + "9" * 200_000]))


def test_a_table_that_is_too_large_is_not_read(write):
    path = write(["a.png,query,1"])
    with path.open("r+b") as stream:
        stream.truncate(2 << 30)  # sparse
    with pytest.raises(ValueError, match="manifest of 2,147,483,648 bytes, at most"):
        load("manifest", root=path)


def test_every_fault_of_a_picture_is_listed(write, tmp_path, monkeypatch):
    path = write([f"{name}.png,query,1" for name in "abc"])
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "b.png", "TIFF")
    Image.new("RGB", (9, 9)).save(tmp_path / "c.png")
    monkeypatch.setenv("DEX_JAX_MAX_PIXELS", "80")
    with pytest.raises(ValueError, match="2 problems") as caught:
        load("manifest", root=path, verify=True)
    said = str(caught.value)
    assert "line 3, column 'path': image has no scale that leads to 8 bits" in said
    assert "line 4, column 'path': image is too large: 'c.png'" in said
