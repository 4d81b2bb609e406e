"""What `benchmarks/fuzz.py` does: good files are read, the rest is judged rightly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import Found, judge, report, spoiled
from benchmarks.fuzz_readers import READERS, Reader

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(tmp_path: Path, name: str):
    if name == "manifests":
        pytest.importorskip("pyarrow")
    reader = READERS[name]
    good = reader.write(tmp_path)
    assert good
    for path in good:
        assert judge(reader, path, {path.name}) == "answer", path


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("a.bin: is cut"), "ours: ValueError"),
        (FileNotFoundError("a.bin: gone"), "ours: FileNotFoundError"),
        (ValueError("buffer is too small"), "foreign: ValueError that names no file"),
        (
            UnicodeDecodeError("utf-8", b"a.bin", 0, 1, ""),
            "foreign: UnicodeDecodeError",
        ),
        (KeyError("a.bin"), "foreign: KeyError"),
        (MemoryError(), "foreign: MemoryError"),
        (None, "answer"),
    ],
)
def test_an_error_of_ours_names_the_file(tmp_path: Path, error, kind: str):
    def read(path: Path) -> None:
        if error is not None:
            raise error

    reader = Reader(lambda folder: [], read)
    assert judge(reader, tmp_path / "a.bin", {"a.bin"}) == kind


def test_equal_seeds_spoil_alike(tmp_path: Path):
    good = tmp_path / "a.bin"
    good.write_bytes(bytes(range(256)))
    contents = []
    for number, name in ((3, "x"), (3, "y"), (4, "z")):
        (tmp_path / name).mkdir()
        path, names = spoiled([good], tmp_path / name, seed=0, number=number)
        assert names == {"a.bin"}
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] != contents[2]
    assert good.read_bytes() == bytes(range(256))


def test_what_should_not_be_is_reported(capsys, tmp_path: Path):
    found = Found(peak=100)
    found.kinds.update({"answer": 3, "ours: ValueError": 7})
    assert report("fine", found, limit=500)
    assert not report("large", found, limit=99)
    found.kinds["signal: SIGSEGV"] += 1
    found.examples["signal: SIGSEGV"] = tmp_path / "17"
    assert not report("crash", found, limit=500)
    text = capsys.readouterr().out
    assert "answer 3, ours: ValueError 7" in text
    assert f"signal: SIGSEGV: {tmp_path / '17'}" in text


def test_the_command(tmp_path: Path):
    words = ["--inputs", "30", "--reader", "checkpoints", "--keep", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *words, "--limit", "4000"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "checkpoints           30" in ended.stdout
    assert not list(tmp_path.iterdir())
