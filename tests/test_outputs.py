"""What is checked before a file is written, and text that steers nothing."""

import os
import unicodedata

import pytest

from dex_jax._checks import check_new_file, plain_text


def test_what_steers_is_written_out():
    assert plain_text("a\x1b[2J\x9b\u202e\ud800\n") == "a\\x1b[2J\\x9b\\u202e\\ud800\\n"
    assert plain_text("a\r\nb\tc", lines=True) == "a\\r\nb\\tc"
    assert plain_text("\U000e0041") == "\\U000e0041"
    for kept in ("a b_c.jpg", "\u65e5\u672c", "\u0646\u200c\u0645", "[/b] $x$ \\"):
        assert plain_text(kept) == kept


def test_no_control_character_passes():
    every = "".join(map(chr, range(0x110000)))
    left = {c for c in plain_text(every) if unicodedata.category(c) in ("Cc", "Cs")}
    assert not left
    steering = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {
        c for c in plain_text(every) if unicodedata.bidirectional(c) in steering
    }


def test_places_of_new_files(tmp_path):
    (tmp_path / "there").write_text("x")
    (tmp_path / "link").symlink_to("there")
    os.mkfifo(tmp_path / "pipe")
    assert check_new_file(tmp_path / "a" / "b", "--x") == tmp_path / "a" / "b"
    assert check_new_file(tmp_path / "there", "--x", replace=True).is_file()
    for name, message in (
        ("there", "--x: .*there is there already; --force replaces it"),
        ("link", "--x: .*link is a link, expected a file's name"),
        ("pipe", "--x: .*pipe is a pipe, socket or device"),
        (".", "--x: .* is a folder, expected a file's name"),
        ("there/x", "--x: .* lies below the file .*there"),
        ("y" * 300, "--x: .*: File name too long"),
        ("a\0b", "--x: .*: embedded null byte"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            check_new_file(tmp_path / name, "--x", replace="link" in name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_folders_that_take_no_files(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="--x: nothing may be written into"):
        check_new_file(tmp_path / "a", "--x")
    tmp_path.chmod(0o700)
