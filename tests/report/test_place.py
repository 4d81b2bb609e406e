"""What a report may replace, and what is left after a failure or a kill."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dex_jax.report import _place as place
from dex_jax.report import check_apart, check_file, check_folder, write_report

# Reports are drawn once, on one worker.
pytestmark = pytest.mark.xdist_group("report")
OURS = {"report.json": json.dumps({"written_by": place.WRITTEN_BY, "who": "old"})}
EARLIER = dict.fromkeys(("title", "protocol", "sizes", "notes", "results"), "")


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def who(folder: Path) -> str:
    return json.loads((folder / "report.json").read_text())["who"]


def replaced(folder: Path, new: str = "new") -> None:
    with place.whole_folder(folder, force=True) as partial:
        text = json.dumps({"written_by": place.WRITTEN_BY, "who": new})
        (partial / "report.json").write_text(text)
        (partial / "map.png").write_text("new")


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_name_of_a_report_is_known(report, tmp_path):
    folder = write_report(report, tmp_path / "out", say=lambda _: None)
    assert len(os.listdir(folder)) == 15
    again = write_report(report, folder, brief=True, force=True)
    assert sorted(os.listdir(again)) == ["queries.csv", "report.json"]
    assert os.listdir(tmp_path) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert again.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"report.json": "{}", "thesis.txt": "x"}, "no report.*holds thesis.txt;"),
        ({"report.json": "[" * 100_000}, "is no report of dex_jax; it holds report"),
        ({"report.json": '{"written_by": 3}'}, "is no report"),
        ({"report.json": json.dumps({"versions": {"dex_jax": 1}})}, "is no report"),
        ({"thesis.txt": "x"}, "is no report of dex_jax; it holds thesis.txt"),
        (OURS | {"thesis.txt": "x"}, "holds other things too.*: thesis.txt;"),
        (OURS | {"report.json~": "x"}, "holds other things too.*: report.json~;"),
        (OURS | {"explain_1.png": "x"}, "holds other things too.*: explain_1.png;"),
        (OURS | {".hidden": "x"}, "holds other things too.*: .hidden;"),
        (OURS | {f"n{i}": "" for i in range(9)}, ": n0, n1, n2, n3, n4 and 4 more;"),
    ],
)
def test_only_what_we_wrote_is_replaced(tmp_path, files, message):
    folder = fill(tmp_path / "p", **files)
    before = everything(tmp_path)
    for _ in range(2):
        with pytest.raises(FileExistsError, match=message):
            check_folder(folder, force=True)
        with pytest.raises(FileExistsError, match=message):
            replaced(folder)
    assert everything(tmp_path) == before


def test_folders_and_links_within_are_not_ours(tmp_path):
    folder = fill(tmp_path / "p", **OURS)
    (folder / "map.png").mkdir()
    with pytest.raises(FileExistsError, match=r": map\.png;"):
        check_folder(folder, force=True)
    (folder / "map.png").rmdir()
    (folder / "cmc.png").symlink_to(tmp_path)
    with pytest.raises(FileExistsError, match=r": cmc\.png;"):
        check_folder(folder, force=True)
    (folder / "cmc.png").unlink()
    fill(folder / "inside", **OURS)
    with pytest.raises(FileExistsError, match=": inside;"):
        check_folder(folder, force=True)


def test_reports_of_earlier_versions_are_ours(tmp_path):
    text = json.dumps(EARLIER | {"versions": {"dex_jax": "0.1"}, "who": "old"})
    folder = fill(tmp_path / "p", **{"report.json": text})
    with pytest.raises(FileExistsError, match="holds a report; --force replaces it"):
        check_folder(folder)
    replaced(folder)
    assert who(folder) == "new" and os.listdir(tmp_path) == ["p"]


def test_links_files_and_paths_without_a_name_are_refused(tmp_path, monkeypatch):
    real = fill(tmp_path / "real", **OURS)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    for name, message in (
        ("link", "link: is a link, which is not replaced"),
        ("nowhere", "is a link"),
        ("file", "exists and is no report"),
        ("file/below", "lies below the file"),
        ("nowhere/below", "lies below the broken link"),
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("..", r"expected the name of a folder, got '.*\.\.'"),
    ):
        with pytest.raises((OSError, ValueError), match=message):
            check_folder(tmp_path / name, force=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected the name of a folder, got '\.'"):
        check_folder(".", force=True)
    assert (tmp_path / "link").is_symlink() and who(real) == "old"


@pytest.mark.parametrize("call", ["rename", "mkdir"])
@pytest.mark.parametrize("fails", [1, 2])
def test_a_failing_call_leaves_the_old_report(tmp_path, monkeypatch, call, fails):
    folder = fill(tmp_path / "p", **OURS, **{"cmc.png": "old"})
    before = everything(tmp_path)
    true, number = getattr(os, call), 0

    def broken(*given, **options):
        nonlocal number
        number += 1
        if number == fails:
            raise OSError(errno.EIO, "failed")
        return true(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        try:
            replaced(folder)
        except OSError:
            assert everything(tmp_path) == before
        else:
            assert who(folder) == "new"
    replaced(folder, "next")
    assert who(folder) == "next" and os.listdir(tmp_path) == ["p"]


# One process, and a copy of it for each call that is the last.
KILLED = """
import os, sys
from pathlib import Path
from tests.report.test_place import replaced
number = last = 0
def ended(name):
    true = getattr(os, name)
    def call(*given, **options):
        global number
        number += 1
        if number == last:
            os._exit(9)
        return true(*given, **options)
    return call
for home in sorted(Path(sys.argv[1]).iterdir()):
    last = int(home.name)
    child = os.fork()
    if not child:
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            setattr(os, name, ended(name))
        replaced(home / "p")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_kill_at_any_call_leaves_one_report_whole(tmp_path):
    homes = [tmp_path / f"{number:02}" for number in range(1, 15)]
    for home in homes:
        fill(home / "p", **OURS, **{"cmc.png": "old"})
        (home / "thesis.txt").write_text("x")
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    ended = found.stdout.split()
    assert ended.count("9") > 5 and ended[-1] == "0"
    for home in homes:
        folder = home / "p"
        # The next run finds what the killed one left.
        with pytest.raises(FileExistsError, match="holds a report; --force"):
            check_folder(folder)
        old, new = {"report.json", "cmc.png"}, {"report.json", "map.png"}
        assert set(os.listdir(folder)) == (old if who(folder) == "old" else new)
        replaced(folder, "next")
        assert who(folder) == "next"
        assert sorted(os.listdir(home)) == ["p", "thesis.txt"]


# Two processes that replace one report again and again.
BESIDE = """
import sys
from pathlib import Path
from tests.report.test_place import replaced
for _ in range(300):
    replaced(Path(sys.argv[1]))
"""


def test_evaluations_that_end_at_once_do_not_lose_their_reports(tmp_path):
    folder = fill(tmp_path / "p", **OURS)
    command = [sys.executable, "-c", BESIDE, str(folder)]
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert who(folder) == "new" and os.listdir(tmp_path) == ["p"]


def test_what_was_being_removed_does_not_come_back(tmp_path):
    fill(tmp_path / ".p.0123456789abcdef.old", **{"cmc.png": "half of a report"})
    check_folder(tmp_path / "p")
    assert not os.listdir(tmp_path)


def test_leftovers_of_the_living_and_of_others_stay(tmp_path):
    folder = fill(tmp_path / "p", **OURS)
    fill(tmp_path / ".p.12345", **OURS)  # the form of earlier versions
    fill(tmp_path / ".p.0123456789abcdef.new", **{"thesis.txt": "x", "map.png": "y"})
    fill(tmp_path / ".q.0123456789abcdef.old", **OURS)
    with place.whole_folder(folder, force=True) as partial:
        (partial / "report.json").write_text(OURS["report.json"])
        with pytest.raises(FileExistsError, match="holds a report"):
            check_folder(folder)
        assert partial.is_dir()  # its writer lives
    assert sorted(os.listdir(tmp_path)) == [
        ".p.0123456789abcdef.new", ".p.12345", ".q.0123456789abcdef.old", "p",
    ]  # fmt: skip
    assert os.listdir(tmp_path / ".p.0123456789abcdef.new") == ["thesis.txt"]


def test_what_came_meanwhile_is_not_lost(tmp_path):
    folder = fill(tmp_path / "p", **OURS)
    with (
        pytest.raises(FileExistsError, match=r": thesis\.txt;"),
        place.whole_folder(folder, force=True),
    ):
        (folder / "thesis.txt").write_text("x")
    assert sorted(os.listdir(folder)) == ["report.json", "thesis.txt"]
    other = tmp_path / "q"
    with pytest.raises(FileExistsError), place.whole_folder(other):
        fill(other, **{"thesis.txt": "x"})
    assert os.listdir(other) == ["thesis.txt"]


def test_long_names_have_short_hidden_ones(tmp_path):
    folder = fill(tmp_path / ("\u00e9" * 127), **OURS)
    replaced(folder)
    assert who(folder) == "new"


def test_a_full_disk_leaves_the_old_report(report, tmp_path, monkeypatch):
    folder = write_report(report, tmp_path / "out", brief=True)
    before = everything(tmp_path)
    true = Path.open

    def full(path, mode="r", *given, **options):
        if "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return true(path, mode, *given, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(report, folder, brief=True, force=True)
    monkeypatch.undo()
    assert everything(tmp_path) == before


def test_files_are_replaced_by_force_alone(tmp_path):
    path = tmp_path / "a.npz"
    check_file(path, "--export", suffix=".npz")
    path.write_text("x")
    with pytest.raises(FileExistsError, match=r"--export: .*a\.npz is there already"):
        check_file(path, "--export")
    check_file(path, "--export", force=True)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("link", "is a link"), ("pipe", "is a pipe, socket or")):
        with pytest.raises(ValueError, match=f"--export: .*{message}"):
            check_file(tmp_path / name, "--export", force=True)


def test_outputs_stand_apart(tmp_path):
    out, inside = tmp_path / "p", tmp_path / "p" / "a.npz"
    check_apart({"--out": out, "--export": tmp_path / "p.npz"})
    for outputs in (
        {"--out": out, "--export": inside},
        {"--out": inside / "report", "--export": inside},
        {"--submission": inside, "--export": inside},
    ):
        with pytest.raises(ValueError, match="give each its own place"):
            check_apart(outputs)


@pytest.mark.parametrize(
    "name", ["explain_0000001234567.png", "explain_12.png", "Report.json", "map.png\n"]
)
def test_a_name_that_no_report_writes_is_somebody_elses(tmp_path, name):
    folder = fill(tmp_path / "out", **OURS, **{name: "mine"})
    with pytest.raises(FileExistsError, match="holds other things too"):
        check_folder(folder, force=True)
    assert (folder / name).read_text() == "mine"
    known = fill(tmp_path / "known", **OURS, **{"explain_1234567.png": "ours"})
    check_folder(known, force=True)
