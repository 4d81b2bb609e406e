"""A data set is known by the content of its files."""

import os
import shutil
import warnings

import pytest

from dex_jax.data import _contents, load
from dex_jax.data._contents import read_contents
from dex_jax.data._images import ImageFiles
from tests.data import fake_sets


def replace(path, content):
    """Puts another content of equal size in a file's place, its times restored."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def files(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * 10)
    return ImageFiles(tmp_path, [f"{i}.jpg" for i in range(4)])


@pytest.fixture
def remembering(tmp_path_factory, monkeypatch):
    """Lets small sets be remembered, and files count as old; returns what is kept."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DEX_JAX_DATA", str(cache))
    monkeypatch.setattr(_contents, "_WORTH_KEEPING", 1)
    monkeypatch.setattr(_contents, "_SETTLED_SECONDS", -1.0)
    return lambda: list(cache.rglob("*"))[1:]


@pytest.fixture
def read_paths(monkeypatch):
    """Names the files that are read."""
    found = []
    digest = _contents.hashlib.file_digest

    def noted(stream, name):
        found.append(os.path.basename(stream.name))
        return digest(stream, name)

    monkeypatch.setattr(_contents.hashlib, "file_digest", noted)
    return found


@pytest.mark.parametrize("name", ["manifest", "veri776", "market1501"])
def test_a_picture_of_equal_size_is_another(name, tmp_path):
    if name == "manifest":
        fake_sets.images(tmp_path, ["a.jpg", "b.jpg"])
        root, picture = tmp_path / "cars.csv", tmp_path / "a.jpg"
        root.write_text("path,split\na.jpg,query\nb.jpg,gallery\n")
    else:
        tree = {"veri776": fake_sets.veri, "market1501": fake_sets.market}[name]
        root = tree(tmp_path)
        picture = next((root / "query").glob("*.jpg"), None)
        picture = picture or next((root / "image_query").glob("*.jpg"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(veri776|market1501): ")
        first = load(name, root=root).source
        assert load(name, root=root).source == first
        content = bytearray(picture.read_bytes())
        content[-20] ^= 1
        replace(picture, bytes(content))
        assert load(name, root=root).source != first


def test_a_copy_elsewhere_is_the_same_set(tmp_path):
    root = fake_sets.vric(tmp_path / "one")
    with pytest.warns(UserWarning, match="differs from the published set"):
        first = load("vric", root=root).source
        shutil.copytree(root, tmp_path / "two")  # other times and inodes
        assert load("vric", root=tmp_path / "two").source == first


def test_a_changed_label_is_another_set(tmp_path):
    root = fake_sets.cityflow(tmp_path)
    with pytest.warns(UserWarning, match="cityflow"):
        first = load("cityflow", root=root).source
        labels = root / "train_label.xml"
        replace(labels, labels.read_bytes().replace(b'"0478"', b'"0479"'))
        assert load("cityflow", root=root).source != first


def test_digests_follow_content_alone(files):
    digests = read_contents(files)
    assert len(digests) == 64
    assert len({digests[i : i + 16] for i in range(0, 64, 16)}) == 4
    again = read_contents(ImageFiles(files.root, ["1.jpg", "gone.jpg", "a\0b.jpg"]))
    assert again == digests[16:32] + bytes(32)


def test_a_file_is_read_once_until_it_is_touched(files, remembering, read_paths):
    first = read_contents(files)
    assert sorted(read_paths) == [f"{i}.jpg" for i in range(4)]
    read_paths.clear()
    assert read_contents(files) == first
    assert not read_paths
    replace(files.root / "2.jpg", b"otherwise.")
    second = read_contents(files)
    assert read_paths == ["2.jpg"]
    assert second[:32] == first[:32] and second[32:48] != first[32:48]
    # Another file takes the place of one: its inode is another.
    (files.root / "new").write_bytes(b"third one.")
    os.replace(files.root / "new", files.root / "2.jpg")
    assert read_contents(files)[32:48] not in (first[32:48], second[32:48])


def test_a_file_that_has_just_changed_is_not_remembered(
    files, remembering, read_paths, monkeypatch
):
    monkeypatch.setattr(_contents, "_SETTLED_SECONDS", 3600.0)
    read_contents(files)
    read_contents(files)
    assert len(read_paths) == 8
    assert not remembering()


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_memory_is_made_anew(damage, files, remembering, read_paths):
    first = read_contents(files)
    (place,) = remembering()
    whole = place.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    place.write_bytes({"cut": whole[:-5], "flipped": flipped, "emptied": b""}[damage])
    read_paths.clear()
    assert read_contents(files) == first
    assert len(read_paths) == 4
    assert read_contents(files) == first
    assert len(read_paths) == 4


def test_sets_that_cannot_be_remembered_are_read_each_time(
    files, remembering, read_paths, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEX_JAX_DATA", str(tmp_path / "file"))
    assert read_contents(files) == read_contents(files)
    assert len(read_paths) == 8


def test_small_sets_leave_nothing_behind(files, tmp_path, monkeypatch):
    monkeypatch.setenv("DEX_JAX_DATA", str(tmp_path / "cache"))
    read_contents(files)
    assert not (tmp_path / "cache").exists()
