"""The page in a real browser: by keyboard, on a phone, in the dark."""

import pytest

from dex_jax.report import PAGE, write_report
from tests.report.browser import CHROMIUM, Browser
from tests.report.conftest import EVIL

pytestmark = [
    # Reports are drawn once, on one worker.
    pytest.mark.xdist_group("report"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
    ),
]
AT = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
NAMES = "[...document.querySelectorAll('.card .who strong')].map(e => e.textContent)"
# Contrast by WCAG 2: (lighter + .05) / (darker + .05) of relative luminances, where
# colours with some transparency lie above those of the elements around them.
CONTRAST = """(() => {
  const read = color => {
    const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
    const most = color.startsWith('rgb') ? 255 : 1;
    return [r / most, g / most, b / most, a];
  };
  const over = ([r, g, b, a], below) =>
    [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
  const light = color => {
    const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = color.map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => element
    ? over(read(getComputedStyle(element).backgroundColor),
        behind(element.parentElement))
    : [1, 1, 1];
  const words = 'h1, h2, .facts, thead th, tbody th, td, td small, .tools label, ' +
    'select, output, .legend, .who strong, .who, .list h3, .list h3 span, .hit span, ' +
    '.gain, .hit em';
  const least = {};
  for (const element of document.querySelectorAll(words)) {
    const below = behind(element);
    const ink = over(read(getComputedStyle(element).color), below);
    const pair = [light(ink), light(below)];
    const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
    const name = element.tagName + '.' + element.className;
    least[name] = Math.min(ratio, least[name] ?? 21);
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def path(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    return write_report(report, folder, say=lambda _: None) / PAGE


def test_the_page_comes_alive(browser, path):
    page = browser.open(path)
    assert page.run("document.querySelectorAll('article.card').length") == 6
    assert page.run("document.getElementById('count').value") == "6 of 6 queries"
    assert page.run("document.querySelectorAll('.hit').length") >= 6 * 2 * 10
    loaded = "[...document.images].every(i => i.src.startsWith('data:image/webp'))"
    assert page.run(loaded)


def test_evil_names_stay_text(browser, evil_page):
    page = browser.open(evil_page)
    assert EVIL.replace("/", "") in page.run(NAMES)
    assert page.run("document.images.length") == 0


def test_worst_failures_come_first_and_keys_change_the_order(browser, path, report):
    page = browser.open(path)
    precision = report.results[1].scored.average_precision
    names = report.file.query_names
    worst = [names[i] for i in precision.argsort(kind="stable")]
    assert page.run(NAMES) == worst
    page.press("s")
    assert page.run("document.getElementById('order').value") == "best"
    # Equal figures keep the order of the data.
    best = [names[i] for i in (-precision).argsort(kind="stable")]
    assert page.run(NAMES) == best
    gain = precision - report.results[0].scored.average_precision
    for order, sign in (("gain", -1), ("loss", 1)):
        page.press("s")
        assert page.run("document.getElementById('order').value") == order
        expected = [names[i] for i in (sign * gain.round(4)).argsort(kind="stable")]
        assert page.run(NAMES) == expected


def test_keys_walk_through_queries_and_chains(browser, path):
    page = browser.open(path)
    page.press("j", "j", "j", "k")
    assert page.run(AT) == 1
    top = "document.activeElement.getBoundingClientRect().top"
    page.wait(top, lambda value: 0 <= value < 120)  # below the tools, which stay
    shown = "document.getElementById('after').selectedIndex"
    assert page.run(shown) == 1
    page.press("]")
    assert page.run(shown) == 0
    assert page.run("document.querySelectorAll('.list').length") == 6  # one list each
    page.press("[")
    assert page.run(shown) == 1
    page.press("j", "Tab", "Enter")
    detail = page.run("document.activeElement.closest('.card').lastChild.textContent")
    assert "gallery/" in detail and "identity" in detail


def test_find_takes_the_keys_until_escape(browser, path):
    page = browser.open(path)
    page.press("/", *"query/4")
    assert page.run("document.getElementById('find').value") == "query/4"
    assert page.run(NAMES) == ["query/4.jpg"]
    page.press("Escape", "j")
    assert page.run(AT) == 0


def test_cameras_filter(browser, path):
    page = browser.open(path)
    choose = "(() => { const e = document.getElementById('%s'); e.value = '%s'; \
e.dispatchEvent(new Event('change')); })()"
    page.run(choose % ("camera", "0"))
    assert len(page.run(NAMES)) == 6  # all queries are of camera 0
    page.run(choose % ("show", "down"))
    assert page.run("document.getElementById('count').value").endswith("of 6 queries")


def test_a_phone_scrolls_down_alone(browser, path):
    page = browser.open(path, width=390, height=844)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.run("getComputedStyle(document.querySelector('.keys')).display") == (
        "none"
    )
    # Ten pictures in a strip of their own, wide enough for a thumb.
    strip = "document.querySelector('.strip')"
    assert page.run(f"{strip}.scrollWidth > {strip}.clientWidth")
    assert page.run(f"{strip}.firstChild.getBoundingClientRect().width") >= 44
    heights = "[...document.querySelectorAll('select')].map(e => e.offsetHeight)"
    assert min(page.run(heights)) >= 36


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(browser, path, scheme):
    page = browser.open(path)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.call("Emulation.setEmulatedMedia", features=[feature])
    dark = page.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 23, 27)"
    )
    assert dark == (scheme == "dark")
    ratios = page.run(CONTRAST)
    assert len(ratios) > 12
    assert {k: round(v, 2) for k, v in ratios.items() if v < 4.5} == {}
