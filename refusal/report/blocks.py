"""What a report is made of: sections of blocks. Both pages, HTML and Markdown, are drawn from the same ones.

The texts are plain; the templates escape them, for names and prompts come from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph; ``warning`` sets it off."""

    text: str
    warning: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of (lead, sentence); the lead, which may be empty, is set in bold."""

    items: Sequence[tuple[str, str]]
    kind: str = "bullets"


@dataclass(frozen=True)
class Table:
    """Rows of ready text under headers; columns after the first are aligned right unless ``words`` names them."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: Sequence[int] = ()
    kind: str = "table"


@dataclass(frozen=True)
class View:
    """What a script of the page draws from ``data``; in Markdown the picture ``png`` that shows the same, if any."""

    script: str
    """Which: ``heatmap``, ``chart``, ``graph`` or ``features``, each a file in ``static``."""
    data: Mapping[str, Any]
    """As JSON holds it; its texts may be anyone's."""
    alt: str
    png: str = ""
    kind: str = "view"


@dataclass(frozen=True)
class Row:
    """Views side by side, where the page is wide enough; in Markdown the picture of the first that has one."""

    views: Sequence[View]
    kind: str = "row"


@dataclass(frozen=True)
class Key:
    """The scale of colours; ``marks`` says what a star at a name means. Markdown's pictures have their own."""

    marks: bool = False
    kind: str = "key"


@dataclass(frozen=True)
class Picture:
    """A drawing: SVG for the page, a PNG's file name for Markdown."""

    svg: str
    png: str
    alt: str
    kind: str = "picture"


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens when wanted."""

    summary: str
    blocks: Sequence[Block]
    kind: str = "fold"


Block = Text | Bullets | Table | View | Row | Key | Picture | Code | Fold


@dataclass(frozen=True)
class Section:
    """A heading, the anchor that leads to it, and its blocks."""

    title: str
    anchor: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-0.00", "0.00")


def share(value: float | None) -> str:
    """Return a fraction as a percentage, or a dash."""
    return "–" if value is None else f"{value:.0%}".replace("-0%", "0%").replace("%", " %")


def interval(low: float | None, high: float | None) -> str:
    """Return ``0.51 to 0.60``, or a dash."""
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def p_value(value: float | None) -> str:
    """Return a p value with two significant digits, or a dash."""
    return "–" if value is None else f"{value:.2g}"
