"""The index by starting layer: which layer was chosen, by what, and what another would have said.

Above: the monolithicity index T_N with its interval, over the zones of the verdict. Below: the own-category drop, which
alone chooses N (the latest one with at least half of the best drop, among the layers that have a vote). Where the drop
is under half of the best, the index is a ratio of small numbers: it is drawn hollow, and joined to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE
from refusal.style import BLUE, INK, LINE, MUTED, ORANGE, styled

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
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.9, 1))
        for axes in (top, below):
            axes.axvspan(steps[0]["start"] - 0.5, last + 0.5, color=LINE, alpha=0.45, linewidth=0)
            if chosen is not None:
                axes.axvline(chosen, color=ORANGE, linewidth=1, linestyle=":")
        draw_index(top, steps, chosen)
        name_zones(top)
        if any(step["index"] is not None and not works(step, steps) for step in steps):
            note = "hollow: own fall\ntoo small to divide by"
            top.annotate(note, (1.01, 0), xycoords="axes fraction", size=7, color=MUTED)
        top.set_title(_headline(steps, chosen))
        top.set_ylabel("index T: fall of others' score\n/ fall of own score")
        _drop(below, steps)
        below.set_xlim(steps[0]["start"] - 0.5, max(steps[-1]["start"], comparison["n_layers"] - 1) + 0.5)
        below.set_xlabel("first layer knocked out, N (shaded: layers with a vote)")
        below.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    return figure


def draw_index(axes: Axes, steps: Sequence[Mapping[str, Any]], chosen: int | None) -> None:
    """Draw the index and its interval at the starting layers where it was measured, over the zones of the verdict.

    Args:
        axes: Where.
        steps: ``by_start`` of a reading.
        chosen: The starting layer of the index, set off in colour.
    """
    known = [step for step in steps if step["index"] is not None]
    enough = [step for step in known if works(step, steps)]
    lows, highs = ([step[end] for step in enough if step[end] is not None] for end in ("low", "high"))
    bottom, top = max(min([-0.12, *lows]), LOWEST), min(max([1.12, *highs]), HIGHEST)
    for threshold in (MODULAR_BELOW, MONOLITHIC_ABOVE):
        axes.axhline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot([s["start"] for s in enough], [s["index"] for s in enough], color=BLUE, linewidth=1, alpha=0.6)
    for step in known:
        _point(axes, step, (bottom, top), chosen=step["start"] == chosen, solid=step in enough)
    axes.set_ylim(bottom, top)
    axes.set_yticks([0, MODULAR_BELOW, MONOLITHIC_ABOVE, 1])


def name_zones(axes: Axes) -> None:
    """Write the verdict's three words beside their zones."""
    for middle, word in ((0.15, "modular"), (0.5, "mixed"), (0.85, "monolithic")):
        axes.annotate(word, (1.01, middle), xycoords=("axes fraction", "data"), va="center", size=8, color=MUTED)


def works(step: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a start keeps half of the best own-category drop, so that its index means something."""
    best = max((other["own_drop"] for other in steps if other["own_drop"] is not None), default=0.0)
    return step["own_drop"] is not None and best > 0 and step["own_drop"] >= best / 2


def _point(axes: Axes, step: Mapping[str, Any], limits: tuple[float, float], *, chosen: bool, solid: bool) -> None:
    """One starting layer: a dot with its interval, or an arrow at the edge that it lies beyond."""
    (bottom, top), index, at = limits, step["index"], step["start"]
    colour = ORANGE if chosen else BLUE if solid else MUTED
    if bottom <= index <= top:
        face, size = colour if solid or chosen else "none", 7.5 if chosen else 4.5
        axes.plot([at], [index], "o", color=colour, markerfacecolor=face, markersize=size, zorder=3)
    else:
        mark = "^" if index > top else "v"
        axes.plot([at], [top if index > top else bottom], mark, color=colour, markerfacecolor="none", clip_on=False)
    if step["low"] is not None and step["high"] is not None:
        axes.vlines(at, step["low"], step["high"], color=colour, linewidth=3.2 if chosen else 1.6 if solid else 0.8)


def _headline(steps: Sequence[Mapping[str, Any]], chosen: int | None) -> str:
    """The title: the chosen start and its index."""
    step = next((step for step in steps if step["start"] == chosen), None)
    if step is None or step["index"] is None:
        return "No starting layer could be chosen"
    bounds = "" if step["low"] is None else f" ({step['low']:.2f} to {step['high']:.2f})"
    return f"Chosen: N = {chosen}, index {step['index']:.2f}{bounds}"


def _drop(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """The own-category drop in nats, with the half of the best that a starting layer must reach."""
    drops = [float("nan") if step["own_drop"] is None else step["own_drop"] for step in steps]
    axes.plot([step["start"] for step in steps], drops, "o-", color=INK, linewidth=1, markersize=3.5)
    known = [drop for drop in drops if drop == drop]
    best = max(known, default=0.0)
    if best > 0:
        axes.axhline(best / 2, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            "half of best", (1.01, best / 2), xycoords=("axes fraction", "data"), va="center", size=8, color=MUTED
        )
        axes.set_ylim(min(0.0, *known) - 0.08 * best, best * 1.15)
    axes.set_ylabel("fall of own\nscore (nats)")
