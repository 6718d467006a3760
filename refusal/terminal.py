"""Tables on a terminal, of texts that come from anyone's data and must not steer it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 160  # of a page that is no terminal


def page() -> Console:
    """Return what tables are printed on: the terminal, or a wide page; texts stay as they are."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def print_table(
    console: Console, headers: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int]
) -> None:
    """Print a table and an empty line; the columns whose numbers are in ``words`` are text, the others figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i in words else "right", no_wrap=i not in words, overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    console.print(table, "")


def plain(text: str) -> str:
    """Return the text without characters that would steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
