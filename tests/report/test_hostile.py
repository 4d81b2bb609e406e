"""Words that try to be markup, in every field that a file can fill."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from dex_jax._checks import plain_text
from dex_jax.data import Protocol, ReidData, ReidSplit
from dex_jax.evaluation import Row, run_row
from dex_jax.report import PAGE, Report, save_data_figure, write_report
from dex_jax.rerank import chain, parse
from tests.evaluation.example import make_file
from tests.report.browser import CHROMIUM, Browser
from tests.report.conftest import make_images

# Reports are drawn once, on one worker.
pytestmark = pytest.mark.xdist_group("report")
WORDS = (
    "[/docs]",
    "[/b] [link=https://example.org]x[/link] :smile:",
    "$x^{_$.jpg",
    "a $ b $$ c",
    "</script><script>document.title='run'</script><img src=x onerror=alert(1)>",
    "\" onmouseover='document.title=1' <!-- ]]> &lt; {{ 7 * 7 }} {% raw %}",
    "\x1b[31m\x1b]0;title\x07 \x9b2J \x00.jpg",
    "two\nlines\r\nof one name \u2028 \u2029",
    "\u202egpj.exe \u2066 \u200f \ufeff",
    "half a pair \ud800.jpg",
    "=HYPERLINK(1)",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "\uff1d1",
    "a,b;=c\"d'",
    "\u65e5\u672c\u8a9e \U0001f600 \u0627\u0644",
    "_",
    "%s %n {0} {x!r}",
    "x" * 5000,
)
ANYWHERE = (*WORDS, "\\", "\\frac{", "$\\$", "C:\\..\\x", "/etc/passwd", "")


def no_constant(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def is_plain(text: str) -> bool:
    return plain_text(text, lines=True) == text


@pytest.fixture(scope="module")
def hostile() -> Report:
    file = make_file(identities=len(WORDS), cameras=2, images=1)
    names = {
        "query_names": tuple(f"{word}#" for word in WORDS),
        "gallery_names": tuple(f"{WORDS[i // 2]}{i}" for i in range(2 * len(WORDS))),
    }
    meta = {
        "words": {"identities": list(WORDS), "cameras": ["$x_$ [/b]", WORDS[4]]},
        "nan": float("nan"),
        "infinite": [float("inf"), {"deep": -np.inf}],
        "long": 10**5000,
        **{word: word for word in ANYWHERE},
    }
    deep: list = []
    for _ in range(2000):
        deep = [deep]
    file = replace(file, **names, meta={**meta, "deep": deep})
    protocol = Protocol(" ".join(ANYWHERE), remove_same_camera=True)
    # Identities are more than a byte holds.
    sides = {"query": len(file.query_names), "gallery": len(file.gallery_names)}
    images = {side: [np.zeros((8, 9, 3), np.uint8)] * n for side, n in sides.items()}
    rows = [Row("baseline [/]", chain()), Row(WORDS[2], parse("dex(k=3)"))]
    return Report(
        " ".join(ANYWHERE),
        file,
        protocol,
        [run_row(file, row, protocol) for row in rows],
        facts={"a": np.float32("nan"), "b": {1, 2}, "c": object, "d": np.eye(1)},
        notes=ANYWHERE,
        images=images,
        explained=(2, 6, 9),
    )


@pytest.fixture(scope="module")
def folder(hostile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "out"
    return write_report(hostile, folder, say=lambda _: None)


def test_the_screen_shows_words_as_they_are(hostile, capsys):
    hostile.print()
    shown = capsys.readouterr().out
    assert is_plain(shown)
    joined = "".join(shown.split())
    for word in ("[/docs]", "[link=https://example.org]x[/link]:smile:", "$x^{_$.jpg"):
        assert word in joined
    assert "\\x1b[31m\\x1b]0;title\\x07" in joined and "\\ud800.jpg" in joined


class Parsed(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        tag = self.tags[-1] if self.tags else ""
        self.text[tag] = self.text.get(tag, "") + data


def test_the_page_has_no_elements_but_its_own(folder, hostile):
    page = Parsed((folder / PAGE).read_text(encoding="utf-8"))
    assert page.tags.count("script") == 3 and "img" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert page.text["title"].startswith(plain_text(hostile.title))
    for note in hostile.notes:
        assert plain_text(note) in page.text["li"]
    assert all(is_plain(text) for text in page.text.values())


def test_figures_draw_words_letter_by_letter(folder):
    figures = {path.stem for path in folder.glob("*.png")}
    assert {"map", "cmc", "cameras", "explain_000002", "explain_000006"} <= figures
    page = (folder / PAGE).read_text(encoding="utf-8")
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert {"$x^{_$.jpg", "$x_$ [/b]"} <= set(drawn)
    assert max(map(len, drawn)) < 120 + 4 * 80  # "&amp;"


def test_no_cell_is_a_formula(folder, hostile):
    raw = (folder / "queries.csv").read_bytes().decode("utf-8")
    assert is_plain(raw.replace("\r\n", "\n"))
    assert raw.count("\r\n") == 1 + len(WORDS)
    rows = list(csv.reader(raw.splitlines()))
    assert {len(row) for row in rows} == {5}
    for word, row in zip(WORDS, rows[1:], strict=True):
        for given, cell in ((f"{word}#", row[0]), (word, row[1])):
            guarded = word.strip()[0] in "=+-@\uff1d" and word[0] != "\t"
            assert cell == ("'" if guarded else "") + plain_text(given)
        assert row[2] == "$x_$ [/b]"
        assert 0 <= float(row[3]) <= 1
    assert hostile.record()["embeddings"]["words"]["cameras"][0] == "$x_$ [/b]"


def test_the_record_is_json_for_every_reader(folder, hostile):
    raw = (folder / "report.json").read_bytes().decode("utf-8")
    found = json.loads(raw, parse_constant=no_constant)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # no half of a pair
    meta = found["embeddings"]
    assert meta["nan"] is None and meta["infinite"] == [None, {"deep": None}]
    assert meta["long"].startswith("0x") and meta["[/docs]"] == "[/docs]"
    assert (found["a"], found["b"], found["d"]) == (None, "{1, 2}", [1.0])
    assert found["title"].startswith("[/docs]")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_runs_in_a_browser(folder, hostile, tmp_path):
    browser = Browser(tmp_path)
    page = browser.open(folder / PAGE)
    assert page.run("document.title").startswith("[/docs]")
    assert page.run("document.querySelectorAll('script').length") == 3
    loaded = "[...document.images].every(i => i.src.startsWith('data:image/webp'))"
    assert page.run(loaded)
    page.press("End")
    names = (
        "[...document.querySelectorAll('.card .who strong')].map(e => e.textContent)"
    )
    shown = page.run(names)
    assert set(shown) <= {plain_text(name) for name in hostile.file.query_names}
    cameras = "[...document.getElementById('camera').options].map(o => o.textContent)"
    assert page.run(cameras)[1] == "camera $x_$ [/b]"
    browser.close()


def test_the_figure_of_a_data_set_draws_words(tmp_path):
    none = ReidSplit([], (), np.empty(0, np.int64))
    train = ReidSplit(
        np.zeros((4, 8, 8, 3), np.uint8),
        tuple("abcd"),
        np.array([0, 0, 1, 1]),
        np.array([0, 1, 0, 1]),
    )
    protocol = Protocol("$x^{_$ \x1b[2J")
    cameras = ("$a_$", "\u65e5\u672c" + "W" * 500)
    data = ReidData("d", train, none, none, protocol, "s", camera_names=cameras)
    save_data_figure(data, tmp_path / "d.svg")
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "d.svg").read_text())
    assert "$a_$" in drawn and "\x1b" not in "".join(drawn)
    assert any(text.startswith(r"$x^{_$ \x1b[2J: same-camera") for text in drawn)


@pytest.mark.parametrize("words", [3, [], {"cameras": 5}, {"cameras": [None, {}]}])
def test_words_of_another_form_are_ignored(tmp_path, words):
    file = replace(make_file(), meta={"words": words})
    protocol = Protocol("p")
    results = [run_row(file, Row("baseline", chain()), protocol)]
    report = Report("t", file, protocol, results)
    folder = write_report(report, tmp_path / "out", brief=True)
    rows = list(csv.reader((folder / "queries.csv").read_text().splitlines()))
    assert [row[1:3] for row in rows[1:]] == [[str(i), "0"] for i in range(6)]


def test_a_damaged_picture_is_its_name(tmp_path):
    class Damaged(list):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("image file cannot be decoded")
            return super().__getitem__(index)

    file = make_file()
    protocol = Protocol("p", remove_same_camera=True)
    rows = [Row("baseline", chain()), Row("dex", parse("dex(k=3)"))]
    images = {side: Damaged(every) for side, every in make_images(file).items()}
    results = [run_row(file, row, protocol) for row in rows]
    report = Report("t", file, protocol, results, images=images, explained=(3,))
    said = []
    write_report(report, tmp_path / "out", say=said.append)
    assert said[1].endswith(" images cannot be decoded; their names are shown")
    page = (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    assert said[1] in page
