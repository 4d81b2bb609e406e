"""A manifest from a folder as people have it: links, hidden files, odd names."""

import csv
import errno
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from dex_jax.data import load, write_manifest

TRAIN = {"train": r"(.*/)?(?P<identity>\d)(_(?s:.*))?\.\w+"}


@pytest.fixture
def make(tmp_path):
    """Writes images below a folder and returns it."""

    def write(*names: str, below: str = "cars") -> Path:
        for name in names:
            path = tmp_path / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path, "PNG")
        return tmp_path / below

    return write


def paths(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8") as lines:
        return [row["path"] for row in csv.DictReader(lines)]


def test_every_format_that_is_read_is_found(make, tmp_path):
    endings = "jpg JPG jpeg png PNG bmp gif tif tiff webp pgm ppm"
    folder = make(*(f"{i}.{end}" for i, end in enumerate(endings.split()[:10])))
    make("0_a.pgm", "0_b.PPM")
    (folder / "notes.txt").write_text("x")
    out = folder / "m.csv"
    assert write_manifest(folder, out, patterns=TRAIN) == (12, 0)


def test_hidden_images_are_left_out_and_counted(make):
    folder = make("1.png", "._1.png", ".2.jpg", ".trash/3.png", "a/.b/4.png", "2.png")
    said = []
    out = folder / "m.csv"
    assert write_manifest(folder, out, patterns=TRAIN, say=said.append) == (2, 0)
    assert said == ["4 hidden images are left out, first '.2.jpg'"]
    assert paths(out) == ["1.png", "2.png"]
    # What the user names himself is not hidden.
    hidden = make("1.png", "2.png", below=".cars")
    assert write_manifest(hidden, hidden / "m.csv", patterns=TRAIN) == (2, 0)


def test_links_keep_the_users_names(make, tmp_path):
    store = make("1.png", "deep/2.png", below="store")
    folder = make("0.png")
    (folder / "linked").symlink_to(store)
    (folder / "3.png").symlink_to(store / "1.png")
    for where in (folder / "m.csv", tmp_path / "m.csv"):
        assert write_manifest(folder, where, patterns=TRAIN) == (4, 0)
        start = "" if where.parent == folder else "cars/"
        names = ["0.png", "3.png", "linked/1.png", "linked/deep/2.png"]
        assert paths(where) == [start + name for name in names]
        assert len(load("manifest", root=where).train.images[3]) == 4


def test_a_folder_reached_by_a_link_keeps_that_name(make, tmp_path, monkeypatch):
    make("1.png", below="store")
    (tmp_path / "cars").symlink_to("store")
    monkeypatch.chdir(tmp_path)
    for folder in ("cars", tmp_path / "cars", "store/../cars"):
        assert write_manifest(folder, "m.csv", patterns=TRAIN, force=True) == (1, 0)
        assert paths(Path("m.csv")) == ["cars/1.png"]
    # The table's folder under another name than that of the images.
    write_manifest("store", tmp_path / "cars" / "n.csv", patterns=TRAIN)
    assert paths(Path("cars/n.csv")) == ["1.png"]
    # Elsewhere: paths start from the folder itself.
    (tmp_path / "other").mkdir()
    write_manifest("cars", Path("other/m.csv"), patterns=TRAIN)
    assert paths(Path("other/m.csv")) == ["1.png"]


def test_loops_of_links_end(make):
    folder = make("1.png", "a/2.png")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "a" / "here").symlink_to(".")
    (folder / "5.png").symlink_to("5.png")
    rows, _ = write_manifest(folder, folder / "m.csv", patterns=TRAIN)
    assert rows == 3 and paths(folder / "m.csv") == ["1.png", "5.png", "a/2.png"]


def test_links_to_links_cannot_give_a_million_names(make):
    folder = make("0/1.png")
    for level in range(1, 12):
        (folder / str(level)).mkdir()
        for link in "ab":
            (folder / str(level) / link).symlink_to(f"../{level - 1}")
    with pytest.raises(ValueError, match=r"links give '.*' more than 100 names"):
        write_manifest(folder, folder / "m.csv", patterns=TRAIN)
    assert not (folder / "m.csv").exists()


def test_names_that_are_not_utf8_are_named_and_nothing_is_written(make):
    folder = make("1.png")
    bad = os.fsdecode(b"2_caf\xe9.png")
    make(bad)
    with pytest.raises(ValueError, match=re.escape(r"UTF-8: '2_caf\udce9.png'")):
        write_manifest(folder, folder / "m.csv", patterns=TRAIN)
    assert sorted(os.listdir(folder)) == ["1.png", bad]
    # One that no pattern matches is none of the manifest's.
    (folder / bad).rename(folder / bad.replace("2", "x"))
    assert write_manifest(folder, folder / "m.csv", patterns=TRAIN) == (1, 1)


@pytest.mark.parametrize("odd", ["\r", "\n", "\r\n", '"', ",", ' "x", ', "=", "\u65e5"])
def test_odd_names_are_read_as_they_were_written(make, odd):
    folder = make(f"1_{odd}.png", "2.png")
    assert write_manifest(folder, folder / "m.csv", patterns=TRAIN) == (2, 0)
    data = load("manifest", root=folder / "m.csv")
    assert data.train.names == (f"1_{odd}.png", "2.png")


def test_a_table_is_replaced_by_force_alone(make, tmp_path):
    folder = make("1.png")
    out = folder / "m.csv"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"out: .*m\.csv is there already"):
        write_manifest(folder, out, patterns=TRAIN)
    assert out.read_text() == "mine"
    assert write_manifest(folder, out, patterns=TRAIN, force=True) == (1, 0)
    assert paths(out) == ["1.png"]
    (folder / "link.csv").symlink_to(out)
    for name, message in (
        ("link.csv", "is a link"),
        ("1.png/m.csv", "lies below the file"),
        ("m.parquet", "is written as CSV, expected another ending"),
        ("", "is a folder, expected a file's name"),
    ):
        with pytest.raises((OSError, ValueError), match=f"out: .*{message}"):
            write_manifest(folder, folder / name, patterns=TRAIN, force=True)


def test_a_full_disk_leaves_the_old_table(make, monkeypatch):
    folder = make("1.png")
    (folder / "m.csv").write_text("mine")
    true = Path.open

    def full(path, mode="r", *given, **options):
        stream = true(path, mode, *given, **options)
        if "w" in mode:

            def write(_):
                raise OSError(errno.ENOSPC, "No space left on device")

            stream.write = write
        return stream

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        write_manifest(folder, folder / "m.csv", patterns=TRAIN, force=True)
    monkeypatch.undo()
    assert sorted(os.listdir(folder)) == ["1.png", "m.csv"]
    assert (folder / "m.csv").read_text() == "mine"
