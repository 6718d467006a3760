from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from refusal.report.build import main
from refusal.report.page import data_json, markdown
from refusal.report.study import Study
from refusal.report.words import sentence
from tests.report.fixture import CASES, HOSTILE, TOKENS, write_case

Homes = dict[str, Path]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags close in order; gathers tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    return reader


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_and_opens_with_the_verdict(homes: Homes, studies: dict[str, Study], case: str):
    reader = read(homes[case] / "report" / "report.html")
    assert reader.open == []
    text = html.unescape(" ".join(" ".join(reader.words).split()))
    verdict = sentence(studies[case].verdict)
    assert verdict in text
    assert text.index(verdict) < text.index("Reason for doubt") < text.index("Which layer decides")


def scripts(page: str) -> list[str]:
    """The scripts of a page that are run."""
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)


@pytest.mark.parametrize("case", CASES)
def test_the_page_loads_nothing_from_anywhere(homes: Homes, case: str):
    page = (homes[case] / "report" / "report.html").read_text(encoding="utf-8")
    for tag, name, value in read(homes[case] / "report" / "report.html").attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    for script in scripts(page):
        page = page.replace(script, "")
    assert "@import" not in page
    assert not re.search(r"url\(\s*['\"]?(?!#)", page)  # only clip paths of the page's own drawings


def test_only_the_two_scripts_that_the_policy_names_are_run(homes: Homes):
    page = (homes["noisy"] / "report" / "report.html").read_text(encoding="utf-8")
    (policy,) = [v for tag, name, v in read(homes["noisy"] / "report" / "report.html").attributes if "default-src" in v]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts(page)]
    assert len(hashes) == 2
    assert policy.startswith("default-src 'none'; script-src 'sha256-{}' 'sha256-{}'; ".format(*hashes))
    assert "unsafe-eval" not in policy
    assert page.count("<script") == 2 + page.count('<script type="application/json">')


@pytest.mark.parametrize("data", [TOKENS, {"</script>": "<!--"}, "\ud800 \u2028 é", [1.5, None, True]])
def test_data_within_the_page_is_ascii_that_means_nothing_to_html(data: object):
    text = data_json(data)
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == data


def test_without_texts_no_prompt_or_response_is_in_either_page(tmp_path: Path):
    home = write_case(tmp_path, "noisy")
    pages = [home / "report" / name for name in ("report.html", "report.md")]
    for arguments, words in (([], ("txet desrever", "Sure | ")), (["--no-texts"], ())):
        assert main([str(home), *arguments]) == 0
        texts = [html.unescape(page.read_text(encoding="utf-8")).replace("\\", "") for page in pages]
        for word in ("txet desrever", "Sure | "):
            assert any(word in text for text in texts) == (word in words), word
    assert all("--no-texts" in text for text in texts)  # how to make it again


def test_hostile_names_are_text(homes: Homes):
    page = (homes["noisy"] / "report" / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert html.escape(HOSTILE, quote=True).replace("&#x27;", "&#39;") in page
    handlers = [
        name for _, name, _ in read(homes["noisy"] / "report" / "report.html").attributes if name.startswith("on")
    ]
    assert handlers == []
    text = (homes["noisy"] / "report" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "[d](" not in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    assert rows
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {7, 9, 10, 11}  # five, and seven to nine columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<b>", "&lt;b&gt;"),
        ("two\nlines", "two lines"),
        ("[x](y)", r"\[x\](y)"),
        ("`c` *e*", r"\`c\` \*e\*"),
        ("mlp_2", "mlp_2"),
        ("_e_", r"\_e\_"),
        (3, 3),
    ],
)
def test_markdown_escapes(text: object, expected: object):
    assert markdown(text) == expected


@pytest.mark.parametrize("case", CASES)
def test_markdown_opens_with_the_verdict_and_its_pictures_are_there(homes: Homes, studies: dict[str, Study], case: str):
    report = homes[case] / "report"
    lines = (report / "report.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {markdown(sentence(studies[case].verdict))}"
    assert lines[2].startswith("**Reason for doubt.** ")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", "\n".join(lines))
    assert len(pictures) == (4 if case == "planted" else 2)
    assert all((report / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("case", CASES)
def test_markdown_tables_have_as_many_cells_as_headers(homes: Homes, case: str):
    widths: list[int] = []
    for line in (homes[case] / "report" / "report.md").read_text(encoding="utf-8").splitlines():
        widths = [*widths, len(re.split(r"(?<!\\)\|", line))] if line.startswith("|") else []
        assert len(set(widths)) <= 1, line


def test_every_part_of_the_study_is_on_the_page(homes: Homes):
    text = html.unescape(" ".join(read(homes["noisy"] / "report" / "report.html").words))
    for words in (
        "circuit against direct, which the verdict follows",  # the readings, and that they disagree
        "no: only 4 complied",  # who has no vote, and why
        "over-refusal",  # split x refused
        "residuals_21",  # SAE health at each site
        "Wollschläger et al., 2025",
        "python -m refusal.report.build",
        "0123456789ab",
        "only 8 % of the prompts are toxic",
        "Faithfulness",
    ):
        assert words in text, words


def test_a_study_without_circuits_has_a_page(homes: Homes):
    text = html.unescape(" ".join(read(homes["bare"] / "report" / "report.html").words))
    assert "No circuits were compared in this study" in text
    assert "there is no index" in text
    assert "None" not in text
    assert "What the circuits do" not in text


def test_the_same_files_make_the_same_page(tmp_path: Path):
    home = write_case(tmp_path, "one_site")
    assert main([str(home)]) == 0
    first = (home / "report" / "report.html").read_bytes()
    assert main([str(home)]) == 0
    assert (home / "report" / "report.html").read_bytes() == first


def test_the_command_ends_with_one_line_where_there_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
