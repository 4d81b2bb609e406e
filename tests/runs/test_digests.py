"""Which files of a checkpoint are watched, and what of them is noticed."""

import json
from pathlib import Path

import pytest

from dex_jax.runs._digests import DIGESTS, add_digests, check_digests, write_digests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state" / "d").mkdir(parents=True)
    (tmp_path / "state" / "d" / "a").write_bytes(b"abc")
    (tmp_path / "top").write_bytes(b"")
    return tmp_path


def test_files_in_folders_first_and_those_beside_them_later(folder: Path):
    assert check_digests(folder) is False
    write_digests(folder)
    written = json.loads((folder / DIGESTS).read_text())
    # SHA-256 of b"abc", as FIPS 180-2 gives it.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert written == {"state/d/a": [3, abc]}
    (folder / "top").write_bytes(b"later")
    add_digests(folder)
    assert list(json.loads((folder / DIGESTS).read_text())) == ["state/d/a", "top"]
    assert check_digests(folder) is True
    (folder / "top").write_bytes(b"Later")
    with pytest.raises(ValueError, match="top does not match its checksum"):
        check_digests(folder)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "state/../../a"])
def test_digests_lead_nowhere_else(folder: Path, name: str):
    (folder / DIGESTS).write_text(json.dumps({name: [0, ""]}))
    with pytest.raises(ValueError, match="lies elsewhere"):
        check_digests(folder)


@pytest.mark.parametrize("entry", [None, True, [], {"a": 1}, [3], ["3", "x"]])
def test_digests_that_are_none_match_nothing(folder: Path, entry: object):
    (folder / DIGESTS).write_text(json.dumps({"state/d/a": entry}))
    with pytest.raises(ValueError, match="state/d/a does not match"):
        check_digests(folder)
