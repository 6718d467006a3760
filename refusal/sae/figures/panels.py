"""What the pictures of trainings share: panels in a grid, their units, scales and legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from refusal.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, YELLOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SPREAD = 5.0  # values that lie further apart than this factor are drawn on a log axis
LEFT, RIGHT, TOP, BOTTOM, BETWEEN, BELOW = 0.85, 0.2, 0.85, 0.55, 0.85, 0.85  # inches around and between panels
LEGEND_LINE = 0.2


class Panel(NamedTuple):
    """One set of axes."""

    key: str
    title: str
    unit: str
    may_be_log: bool = False


FVU = Panel("fvu", "Variance unexplained (FVU)", "share of variance", may_be_log=True)
L0 = Panel("l0", "L0", "active features a row")
DEAD = Panel("dead_fraction", "Dead features", "share that never fired")


def grid(
    title: str,
    n_rows: int,
    n_columns: int,
    *,
    panel: tuple[float, float],
    legend: Sequence[str] = (),
    left: float = LEFT,
) -> tuple[Figure, list[list[Axes]]]:
    """Make axes by hand, since matplotlib's automatic layouts take longer than all the drawing.

    Args:
        title: Of the figure.
        n_rows: Panels one below the other.
        n_columns: Panels side by side.
        panel: Width and height of one, in inches.
        legend: Labels for which there should be room below.
        left: Room at the left, in inches.

    Returns:
        The figure, and its axes by row and column.
    """
    from matplotlib.figure import Figure

    width = left + n_columns * panel[0] + (n_columns - 1) * BETWEEN + RIGHT
    lines = math.ceil(len(legend) / _legend_columns(legend, width))
    bottom = BOTTOM + (LEGEND_LINE * lines + 0.15 if lines else 0)
    height = TOP + n_rows * panel[1] + (n_rows - 1) * BELOW + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    figure.subplots_adjust(
        left=left / width,
        right=1 - RIGHT / width,
        bottom=bottom / height,
        top=1 - TOP / height,
        wspace=BETWEEN / panel[0],
        hspace=BELOW / panel[1],
    )
    figure.suptitle(title, x=0.2 / width, y=1 - 0.2 / height, ha="left", va="top", fontsize=12, fontweight="bold")
    for ax in axes.flat:
        ax.grid(visible=True, linewidth=0.5)
        ax.set_axisbelow(True)
    return figure, [list(row) for row in axes]


def legend_below(figure: Figure) -> None:
    """Say below all panels what their lines are."""
    found = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    width, height = figure.get_size_inches()
    if found:
        columns = _legend_columns(list(found), width)
        at = (LEFT / width, 0.05 / height)
        figure.legend(list(found.values()), list(found), ncols=columns, fontsize=8, loc="lower left", bbox_to_anchor=at)


def styles(labels: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return a colour and a marker for each label: 56 pairs, so that neither colour alone nor shape alone tells."""
    return {
        label: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        for i, label in enumerate(dict.fromkeys(labels))
    }


def dress(ax: Axes, panel: Panel, values: Sequence[float]) -> None:
    """Give a panel its title and unit, and its vertical axis the scale that these values need."""
    ax.set_title(panel.title)
    ax.set_ylabel(panel.unit)
    rescale(ax, "y", values, may_be_log=panel.may_be_log)
    if not values:
        ax.text(0.5, 0.5, "nothing recorded", transform=ax.transAxes, ha="center", color=MUTED)


def rescale(ax: Axes, axis: str, values: Sequence[float], *, may_be_log: bool) -> None:
    """Let an axis be logarithmic where values are far apart, and begin at zero where they are not."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = min(values, default=0.0), max(values, default=0.0)
    if may_be_log and low > 0 and high > SPREAD * low:
        ax.set(**{f"{axis}scale": "log", f"{axis}lim": (low / 1.4, high * 1.4)})
        ticks = ax.xaxis if axis == "x" else ax.yaxis
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)))
        ticks.set_major_formatter(StrMethodFormatter("{x:g}"))
        ticks.set_minor_formatter(NullFormatter())
    elif values:
        ax.set(**{f"{axis}lim": (min(0.0, 1.1 * low), 1.1 * high or 1.0)})  # cosines may be negative


def _legend_columns(labels: Sequence[str], width: float) -> int:
    longest = max(map(len, labels), default=1)
    return max(1, int((width - LEFT) / (0.07 * longest + 0.5)))
