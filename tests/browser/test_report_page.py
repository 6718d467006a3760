"""The report in a browser: it complains of nothing, asks for nothing, and never scrolls sideways as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import CHROMIUM, Visit, visit
from tests.report.fixture import CASES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
WIDTHS = (360, 1600)


@pytest.fixture(scope="module")
def visited(homes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """All four reports, opened at both widths."""
    pages = [f"{home.name}/report/report.html" for home in homes.values()]
    return visit(homes[CASES[0]].parent, pages, WIDTHS, tmp_path_factory.mktemp("profile"))


def test_no_page_scrolls_sideways_with_everything_open(visited: Visit):
    assert len(visited.frames) == len(CASES) * len(WIDTHS)
    assert {frame.width for frame in visited.frames} == set(WIDTHS)
    assert all(": " in frame.title for frame in visited.frames)  # model: verdict
    assert [frame for frame in visited.frames if frame.content > frame.width] == []


def test_the_page_asks_for_nothing_else(visited: Visit):
    assert [frame.asked for frame in visited.frames] == [[]] * len(visited.frames)


def test_the_console_stays_empty(visited: Visit):
    assert visited.complaints == []


def test_a_bad_page_would_be_noticed(tmp_path: Path):
    (tmp_path / "bad.html").write_text(
        "<!doctype html><title>bad</title><div style='width:900px'>wide</div>"
        "<img src='picture.png' alt=''><img src='http://example.com/x.png' alt=''><script>nothing()</script>"
    )
    found = visit(tmp_path, ["bad.html"], (360,), tmp_path / "profile")
    assert found.frames[0].content > 900
    assert {address.rsplit("/", 1)[-1] for address in found.frames[0].asked} == {"picture.png", "x.png"}
    assert any("nothing is not defined" in line for line in found.complaints)
