"""The report in a browser: it runs without complaint, asks for nothing, and never scrolls sideways as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.browser.chromium import CHROMIUM, Browser, Page
from tests.report.fixture import CASES, HOSTILE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
Open = Callable[[str], Page]
LABELS = "[...document.querySelectorAll('[data-view=heatmap]')[0].querySelectorAll('.yaxislayer-above text')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(browser: Browser, homes: dict[str, Path]) -> Open:
    """The report of a case, opened once and left as it was found."""
    return cache(lambda case: browser.open(homes[case] / "report" / "report.html", width=360, dark=True))


@pytest.fixture
def planted(report: Open) -> Page:
    page = report("planted")
    page.set()
    page.settle()
    return page


@pytest.mark.parametrize("case", CASES)
def test_a_page_opens_without_complaint_or_request_and_never_scrolls_sideways(report: Open, case: str):
    page = report(case)
    assert (page.complaints, page.asked) == ([], [])
    assert page.run("document.querySelectorAll('.view > script').length") == 0  # all are drawn
    assert ": " in page.run("document.title")  # model: verdict
    for width in (360, 1600):
        page.set(width=width)
        assert page.overflow() <= 0, width
    page.run("document.querySelectorAll('details').forEach((details) => { details.open = false; })")
    assert (page.complaints, page.asked) == ([], [])


def test_a_bad_page_would_be_noticed(browser: Browser, tmp_path: Path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>bad</title><div style='width:900px'>wide</div>"
        "<img src='picture.png' alt=''><img src='http://example.com/x.png' alt=''><script>nothing()</script>"
    )
    page = browser.open(bad, width=360)
    assert page.overflow() > 500
    assert {address.rsplit("/", 1)[-1] for address in page.asked} == {"picture.png", "x.png"}
    assert any("nothing is not defined" in line for line in page.complaints)


def test_nothing_that_a_text_holds_is_run_or_reorders_the_page(report: Open):
    page = report("noisy")
    text = page.run("document.querySelector('.feature').textContent")
    assert "</script><script>document.title='run'</script>" in text
    assert "<img src=x onerror" in text
    assert "{{ 7 * 7 }}" in text
    assert len(text) < 5_000  # the token of 10,000 letters is cut
    assert not set(text) & set("\u202e\u2066\u200f\0\a\x1b")
    assert page.run("document.title").startswith("noisy: ")
    assert page.run("document.querySelectorAll('.view script, .view img, .view b b').length") == 0
    names = page.run(f"{LABELS}.map((label) => label.textContent)")
    assert any("<script>" in name for name in names)  # as text, in Plotly too
    assert page.complaints == []


def test_a_script_that_came_in_would_not_run(report: Open):
    page = report("one_site")
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert page.run("window.ran") is None
    assert any("Content Security Policy" in line for line in page.complaints)


def test_a_cell_says_both_categories_the_value_the_ceiling_and_p(planted: Page):
    view = "document.querySelectorAll('[data-view=heatmap]')[1]"
    planted.hover(*planted.middle(f"{view}.querySelectorAll('.heatmap-label text')[12]"))
    said = planted.wait_for(f"{view}.querySelector('.hoverlayer').textContent")
    told = (" and ", "similarity: 0.", "noise ceilings: 0.98 and 0.98", "told apart, p: 0.", "above chance, p: 0.")
    for words in told:
        assert words in said, said


def choose(page: Page, view: int, label: str, value: str) -> None:
    """Take a choice of the heatmap with this number."""
    page.run(
        f"""(() => {{
          const controls = [...document.querySelectorAll('[data-view=heatmap]')[{view}].querySelectorAll('.control')];
          const select = controls.find((control) => control.textContent.startsWith({label!r})).querySelector('select');
          select.value = [...select.options].find((option) => option.text === {value!r}).value;
          select.dispatchEvent(new Event('change'));
        }})()"""
    )
    page.settle()


def cells(page: Page, view: int) -> list[str]:
    return page.run(
        f"[...document.querySelectorAll('[data-view=heatmap]')[{view}].querySelectorAll('.heatmap-label text')]"
        ".map((text) => text.textContent).filter(Boolean)"
    )


def test_measure_site_and_order_can_be_switched(planted: Page):
    first = cells(planted, 1)
    assert len(first) == 10 * 10 + 10  # with the ceiling
    choose(planted, 1, "Sites", "attention_0")
    second = cells(planted, 1)
    assert second != first
    choose(planted, 1, "Measure", "Jaccard of nodes")
    assert cells(planted, 1) != second
    choose(planted, 1, "Values", "over the ceiling")
    assert len(cells(planted, 1)) == 100
    choose(planted, 0, "Order", "by name")
    names = planted.run(f"{LABELS}.map((label) => label.textContent)")
    assert names == sorted(names, reverse=names[0] > names[-1])
    assert planted.run("document.activeElement.tagName") in ("SELECT", "BODY")
    assert planted.complaints == []


SAVING = """
window.saved = [];
window.address ??= URL.createObjectURL;
URL.createObjectURL = (blob) => { window.blob = blob; return address.call(URL, blob); };
HTMLAnchorElement.prototype.click = function () { saved.push([this.download, blob]); };
"""
"""Files that the page would save go into a list, with their names."""


def test_a_heatmap_is_a_table_and_a_csv_file_too(planted: Page):
    planted.run(
        f"{SAVING} document.querySelectorAll('[data-view=heatmap]')[0].querySelectorAll('.files button')[1].click()"
    )
    assert planted.run("saved[0][0]").startswith("causal_transfer_directions")
    lines = planted.run("saved[0][1].text()").split("\r\n")
    assert len(lines) == 12  # a head, ten categories, the end
    assert lines[0].startswith(",")
    assert "violence" in lines[0]
    planted.run("document.querySelector('[data-view=heatmap] details').open = true")
    planted.settle()
    rows = planted.run("document.querySelectorAll('[data-view=heatmap]')[0].querySelectorAll('tbody tr').length")
    assert rows == 10
    planted.run("document.querySelector('[data-view=heatmap] details').open = false")


def test_a_figure_can_be_saved_as_a_picture(planted: Page):
    planted.run(f"{SAVING} document.querySelectorAll('[data-view=chart] .files button')[0].click()")
    assert planted.wait_for("saved.length && saved[0][0]") == "index_by_starting_layer.png"
    head = bytes(planted.run("saved[0][1].arrayBuffer().then((bytes) => [...new Uint8Array(bytes, 0, 24)])"))
    assert head.startswith(b"\x89PNG")
    assert int.from_bytes(head[16:20], "big") > 1000  # px: twice as fine as on the page
    assert planted.complaints == []


GRAPH = "document.querySelector('[data-view=graph]')"
DRAWN = f"[{GRAPH}.querySelectorAll('.node').length, {GRAPH}.querySelectorAll('.edge').length]"


def test_sliders_thin_the_graph_by_keyboard(planted: Page):
    nodes, edges = planted.run(DRAWN)
    assert nodes == 12
    assert edges == 27
    for number in (1, 2):
        planted.run(f"{GRAPH}.querySelectorAll('input')[{number - 1}].focus()")
        planted.press("End")
    assert planted.run(DRAWN) == [1, 0]
    assert "1 of 12 nodes and 0 of 27 edges" in planted.run(f"{GRAPH}.querySelector('[role=status]').textContent")
    for number in (1, 2):
        planted.run(f"{GRAPH}.querySelectorAll('input')[{number - 1}].focus()")
        planted.press("Home")
    assert planted.run(DRAWN) == [nodes, edges]


def test_each_category_has_its_graph(planted: Page):
    titles = f"[...{GRAPH}.querySelectorAll('.node title')].map((title) => title.textContent)"
    first = planted.run(titles)
    planted.run(f"{GRAPH}.querySelector('select').focus()")
    planted.press("ArrowDown")
    assert planted.run(f"{GRAPH}.querySelector('svg').getAttribute('aria-label')") == "Circuit of harassment"
    assert planted.run(titles) != first
    assert planted.run("document.activeElement.tagName") == "SELECT"


def test_a_node_leads_to_its_page_by_click_and_by_keyboard(planted: Page):
    places = {f"/{number}": f"{GRAPH}.querySelector('a.node[href$=\"/{number}\"] circle')" for number in (17, 201)}
    planted.click(*planted.middle(places["/17"]))
    title = "document.querySelector('.feature h3').textContent"
    assert planted.run(title).endswith("/17")
    assert planted.run("location.hash") == f"#feature/{planted.run(title)}"
    planted.run(f"{places['/201']}.parentNode.focus()")
    planted.press("Enter")
    assert planted.run(title).endswith("/201")
    assert planted.run("document.activeElement.className") == "feature"


def test_a_feature_has_an_address(browser: Browser, homes: dict[str, Path]):
    page = browser.open(homes["planted"] / "report" / "report.html", at="feature/mlp_0/201")
    assert page.run("document.querySelector('.feature h3').textContent") == "mlp_0/201"
    assert page.run("document.querySelector('.feature .tokens .active').textContent") == "Tell"


def test_figures_follow_the_theme(planted: Page):
    ink = "getComputedStyle(document.querySelector('[data-view=chart] .xtick text')).fill"
    light = planted.run(ink)
    planted.set(dark=True)
    planted.settle()
    assert planted.run(ink) != light


def test_on_paper_everything_is_open_and_dark_on_light(planted: Page):
    planted.set(dark=True)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = planted.run(background)
    planted.run("dispatchEvent(new Event('beforeprint'))")
    assert planted.run("document.querySelectorAll('details:not([open])').length") == 0
    assert planted.run(background) == "rgb(255, 255, 255)" != dark
    planted.run("dispatchEvent(new Event('afterprint'))")
    assert planted.run("document.querySelectorAll('details[open]').length") == 0


def test_hostile_names_are_cut_and_kept_in_lists(report: Open):
    page = report("noisy")
    names = page.run(f"[...{GRAPH}.querySelector('select').options].map((option) => option.text)")
    assert any(name.startswith(HOSTILE[:20]) and len(name) <= 40 for name in names)
