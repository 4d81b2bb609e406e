"""Plain files alone are read; new ones take their place whole."""

import errno
import os
import socket
import stat

import pytest

from dex_jax._checks import check_file, whole_file

pytestmark = pytest.mark.quick


def test_only_plain_files_are_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    (tmp_path / "link").symlink_to("a.txt")
    assert check_file(tmp_path / "link").read_text() == "a"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("pipe", "is a pipe, socket or device, expected a table"),
        (".", "is a folder, expected a table"),
    ):
        with pytest.raises(ValueError, match=message):
            check_file(tmp_path / name, "table")
    for name in ("gone", "none", "a.txt/b"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such table"):
            check_file(tmp_path / name, "table")
    with pytest.raises(OSError, match="loop"):
        check_file(tmp_path / "loop", "table")
    with pytest.raises(ValueError, match="names no table"):
        check_file("a\0b", "table")
    with pytest.raises(ValueError, match="pipe, socket or device"):
        check_file("/dev/zero", "table")


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ValueError, match="s: is a pipe, socket or device"):
            check_file("s")


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path) as partial:
        partial.write_text("old")
        assert not path.exists() and partial.parent == path.parent
    with pytest.raises(OSError, match="No space"), whole_file(path) as partial:
        partial.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
    with whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_rights_are_those_of_any_new_file(tmp_path, mask):
    old = os.umask(mask)
    try:
        with whole_file(tmp_path / "a") as partial:
            partial.write_text("a")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_nobody_can_guess_the_name(tmp_path):
    names = set()
    for _ in range(3):
        with whole_file(tmp_path / "a.npz") as partial:
            partial.write_text("a")
        names.add(partial.name)
    assert len(names) == 3 and all(len(name) > 16 for name in names)
    assert all(name.endswith(".npz") for name in names)


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with (
        pytest.raises(FileExistsError, match=r"a\.txt: is there already"),
        whole_file(path, replace=False),
    ):
        raise AssertionError("nothing may be written")
    path.unlink()
    with (
        pytest.raises(FileExistsError, match=r"a\.txt: is there already"),
        whole_file(path, replace=False) as partial,
    ):
        partial.write_text("new")
        path.write_text("came first")
    assert path.read_text() == "came first" and list(tmp_path.iterdir()) == [path]


def test_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with whole_file(tmp_path / "a", replace=False) as partial:
        partial.write_text("a")
    assert (tmp_path / "a").read_text() == "a"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
