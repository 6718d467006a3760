"""One look for every picture: colours that colour-blind readers tell apart, one scale fixed to [0, 1].

The line colours are Okabe and Ito's (2008); the scale is ColorBrewer's YlGnBu (pale: nothing shared, dark: the same).
A value without a meaning is grey and hatched, never a colour of the scale.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal.artifacts import write_atomic

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, SKY, PURPLE, YELLOW = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00"
INK, MUTED, LINE, UNDEFINED = "#20242c", "#636b78", "#d5d9e0", "#c6cad1"
THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", BLUE: "var(--blue)", ORANGE: "var(--orange)"}

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": "cycler('color', ['0072b2', 'd55e00', '009e73', '56b4e9'])",
    "text.color": INK,
    "text.parse_math": False,  # names are data: a dollar sign is a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "refusal",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside this: matplotlib's settings are the project's, and are put back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@lru_cache(maxsize=1)
def scale() -> Colormap:
    """Return the colour map of every similarity; undefined values are grey."""
    import matplotlib as mpl

    return mpl.colormaps["YlGnBu"].with_extremes(bad=UNDEFINED)


def colour_of(value: float | None) -> str:
    """Return the scale's colour for a value (clipped to [0, 1]; None is grey) as ``#rrggbb``."""
    from matplotlib.colors import to_hex

    return UNDEFINED if value is None else to_hex(scale()(min(max(value, 0.0), 1.0)))


def ink_on(colour: str) -> str:
    """Return black or white, whichever contrasts more with ``#rrggbb`` (WCAG 2 relative luminance)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=160)
    write_atomic(path, buffer.getvalue())
    return path


def inline_svg(figure: Figure, label: str) -> str:
    """Return a figure as SVG for the inside of a page; its colours follow the page's light or dark theme."""
    from markupsafe import escape

    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    for colour, variable in THEMED.items():
        svg = svg.replace(colour, variable)
    return re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg role="img" aria-label="{escape(label)}" \1>', svg, count=1
    )
