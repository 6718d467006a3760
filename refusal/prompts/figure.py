"""The figure of the split statistics: how many prompts of each kind a category has, and how many of them are toxic."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from refusal.prompts.prompt import SPLITS
from refusal.prompts.statistics import TOXIC_PERCENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"safe": "#56b4e9", "hard": "#e69f00", "toxic": "#d55e00"}  # Okabe and Ito, 2008
INK, MUTED, GRID = "#20242c", "#636b78", "#d5d9e0"
INCHES_PER_CATEGORY = 0.62
MAX_INCHES = 120.0
NAME_WIDTH, NAME_LINES = 30, 3


def split_figure(statistics: Mapping[str, Any]) -> Figure:
    """Draw the statistics: counts on a log axis at the left, the toxic share in per cent at the right.

    Args:
        statistics: What ``split_statistics`` returns, with at least one category.
    """
    from matplotlib.figure import Figure

    rows: Mapping[str, Mapping[str, Any]] = statistics["categories"]
    height = min(1.7 + INCHES_PER_CATEGORY * len(rows), MAX_INCHES)
    figure = Figure(figsize=(10, height), layout="constrained", facecolor="white")
    counts, share = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 1])
    _draw_counts(counts, list(rows.values()))
    _draw_share(share, list(rows.values()))
    counts.set_ylim(len(rows) - 0.5, -0.5)  # the first category is at the top
    counts.set_yticks(range(len(rows)), labels=[_short(name) for name in rows])
    counts.set_ylabel("category", color=INK)
    for label in counts.get_yticklabels():
        label.set_parse_math(False)  # a name is data: a dollar sign is a dollar sign
    total = statistics["total"]
    figure.suptitle(
        f"{total['all']:,} prompts: " + ", ".join(f"{total[split]:,} {split}" for split in SPLITS),
        x=0.01,
        ha="left",
        color=INK,
        fontweight="bold",
    )
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def _draw_counts(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    largest = max(row[split] for row in rows for split in SPLITS)
    thick = 0.8 / len(SPLITS)
    for i, split in enumerate(SPLITS):
        places = [y + (i - 1) * thick for y in range(len(rows))]
        values = [row[split] for row in rows]
        axes.barh(places, values, thick * 0.92, color=COLOURS[split], label=split, zorder=2)
        for y, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:,}",
                (max(value, 0.7), y),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.set_xscale("log")
    axes.set_xlim(0.7, max(largest, 10) * 3)  # a single prompt still has a bar, and the longest one room for its number
    axes.set_xlabel("prompts (log scale)", color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(SPLITS), frameon=False, borderaxespad=0.2)
    _tidy(axes)


def _draw_share(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    percents = [100 * row["toxic_share"] for row in rows]
    axes.barh(range(len(rows)), percents, 0.5, color=COLOURS["toxic"], zorder=2)
    for y, percent in enumerate(percents):
        low = percent < TOXIC_PERCENT
        text, end = f"{percent:.1f}%{' (low)' if low else ''}", TOXIC_PERCENT if low else percent
        axes.annotate(text, (end, y), (3, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axes.axvline(TOXIC_PERCENT, color=INK, linestyle="--", linewidth=1, zorder=3)
    axes.annotate(
        f"low: under {TOXIC_PERCENT}%", (TOXIC_PERCENT, 1), (3, 4), xycoords=axes.get_xaxis_transform(),
        textcoords="offset points", fontsize=8, color=INK,
    )  # fmt: skip
    axes.set_xlim(0, max(*percents, 2 * TOXIC_PERCENT) * 1.3)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= min(100, axes.get_xlim()[1])])
    axes.set_xlabel("toxic / (safe + hard + toxic), %", color=INK)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)


def _short(name: str) -> str:
    """Break a long name into lines, and cut what is longer than three of them."""
    return textwrap.fill(name, NAME_WIDTH, max_lines=NAME_LINES, placeholder=" ...")
