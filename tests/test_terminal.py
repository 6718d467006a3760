from __future__ import annotations

from io import StringIO

from rich.console import Console

from refusal.terminal import page, plain, print_table


def test_a_text_keeps_its_lines_and_letters_and_loses_what_steers() -> None:
    assert plain("naïve 日本\nnext") == "naïve 日本\nnext"
    assert plain("\x1b[31mred\r\u202e\u200b\x00") == "\ufffd[31mred" + "\ufffd" * 4


def test_a_table_shows_markup_as_it_is_and_ends_with_an_empty_line() -> None:
    console = Console(file=StringIO(), width=40, markup=False, highlight=False, emoji=False)
    print_table(console, ["name", "n"], [["[red]x[/red] \x1b[2J", "12"], [":smile:", "3"]], words=(0,))
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "name                n",
        "[red]x[/red] \ufffd[2J  12",
        ":smile:             3",
        "",
    ]


def test_what_is_no_terminal_gets_a_wide_page() -> None:
    assert page().width == 160
