"""The index by starting layer: which layer was chosen, by what, and what another would have said.

Above: the monolithicity index T_N with its interval, over the zones of the verdict. Below: the own-category drop, which
alone chooses N (the latest one with at least half of the best drop, among the layers that have a vote).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE
from refusal.report.style import BLUE, INK, LINE, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST, HIGHEST = -0.5, 1.5  # the index is drawn within these; what lies outside is an arrow at the edge


def index_figure(comparison: Mapping[str, Any]) -> Figure | None:
    """Return the figure, or None where the study has no causal transfer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    direct = (comparison.get("transfer") or {}).get("direct") or {}
    steps = direct.get("by_start") or []
    if not steps:
        return None
    last, chosen = comparison["last_voting_layer"], direct.get("start")
    with styled():
        figure = Figure(figsize=(4.7, 4.0), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
        for axes in (top, below):
            axes.axvspan(steps[0]["start"] - 0.5, last + 0.5, color=LINE, alpha=0.45, linewidth=0)
            if chosen is not None:
                axes.axvline(chosen, color=ORANGE, linewidth=1, linestyle=":")
        _index(top, steps, chosen)
        _drop(below, steps)
        below.set_xlim(steps[0]["start"] - 0.5, max(steps[-1]["start"], last) + 0.5)
        below.set_xlabel("knock-out starts at layer N (shaded: layers with a vote)")
        below.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    return figure


def _index(axes: Axes, steps: Sequence[Mapping[str, Any]], chosen: int | None) -> None:
    """The index and its interval, at the starting layers where it was measured."""
    lows = [step["low"] for step in steps if step["low"] is not None]
    highs = [step["high"] for step in steps if step["high"] is not None]
    bottom, top = max(min([-0.08, *lows]), LOWEST), min(max([1.08, *highs]), HIGHEST)
    for threshold in (MODULAR_BELOW, MONOLITHIC_ABOVE):
        axes.axhline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    known = [step for step in steps if step["index"] is not None]
    axes.plot([s["start"] for s in known], [s["index"] for s in known], color=BLUE, linewidth=1, alpha=0.6)
    for step in known:
        index, at = step["index"], step["start"]
        if bottom <= index <= top:
            big = at == chosen
            axes.plot([at], [index], "o", color=ORANGE if big else BLUE, markersize=7 if big else 4.5, zorder=3)
        else:
            axes.plot([at], [top if index > top else bottom], "^" if index > top else "v", color=BLUE, clip_on=False)
        if step["low"] is not None and step["high"] is not None:
            colour, thick = (ORANGE, 3.2) if at == chosen else (BLUE, 1.6)
            axes.vlines(at, step["low"], step["high"], color=colour, linewidth=thick)
    axes.set_ylim(bottom, top)
    axes.set_yticks([0, MODULAR_BELOW, MONOLITHIC_ABOVE, 1])
    axes.set_ylabel("index (transfer T)")
    for middle, word in ((0.15, "modular"), (0.5, "mixed"), (0.85, "monolithic")):
        axes.annotate(word, (1.01, middle), xycoords=("axes fraction", "data"), va="center", size=8, color=MUTED)
    axes.set_title(_headline(steps, chosen))


def _headline(steps: Sequence[Mapping[str, Any]], chosen: int | None) -> str:
    """The title: the chosen start and its index."""
    step = next((step for step in steps if step["start"] == chosen), None)
    if step is None or step["index"] is None:
        return "No starting layer could be chosen"
    return f"Chosen: N = {chosen}, index {step['index']:.2f}"


def _drop(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """The own-category drop in nats, with the half of the best that a starting layer must reach."""
    drops = [_or_gap(step["own_drop"]) for step in steps]
    axes.plot([step["start"] for step in steps], drops, "o-", color=INK, linewidth=1, markersize=3.5)
    best = max((drop for drop in drops if drop == drop), default=0.0)
    if best > 0:
        axes.axhline(best / 2, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "half of best", (1.01, best / 2), xycoords=("axes fraction", "data"), va="center", size=8, color=MUTED
        )
        axes.set_ylim(min(0.0, *(d for d in drops if d == d)) * 1.1, best * 1.15)
    axes.set_ylabel("own-category\ndrop (nats)")


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
