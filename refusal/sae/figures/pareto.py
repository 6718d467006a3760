"""FVU against L0: what fewer active features cost, and which autoencoders no other one beats in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from refusal.sae.figures.panels import FVU, L0, dress, grid, legend_below, rescale, styles
from refusal.sae.history import Trained, labels, middle, replicates
from refusal.style import INK, MUTED, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SITES = 9  # of more sites each kind has a panel, with the medians over its layers
TRACED = ("k", "sae.l0_coefficient", "sae.l1_coefficient")  # along a line these vary


class Point(NamedTuple):
    """The autoencoders of one way of training in one panel, all seeds and layers together."""

    l0: float
    fvu: float
    label: str


def pareto_figure(title: str, trained: Sequence[Trained]) -> Figure:
    """Draw held-out FVU against L0, a panel a site, or a kind of site; the frontier is a line with rings.

    A line joins what differs only in how sparse it is, and is named by what tells it from the others.
    """
    places: dict[str, list[Trained]] = defaultdict(list)
    by_kind = len({str(one.site) for one in trained}) > MOST_SITES
    for one in sorted(trained, key=lambda one: one.site):
        part = "" if one.part == "all" else f", {one.part} prompts"
        places[f"{one.site.kind if by_kind else one.site}{part}"].append(one)
    names = _names(trained)
    look = styles(list(names.values()))
    with styled():
        n_columns = min(3, len(places))
        n_rows = -(-len(places) // n_columns)
        figure, axes = grid(title, n_rows, n_columns, panel=(3.2, 2.6), legend=[*look, "frontier"])
        panels = [ax for row in axes for ax in row]
        for ax, (place, members) in zip(panels, places.items(), strict=False):
            points = _points(members, names)
            for label, style in look.items():
                line = sorted(point for point in points if point.label == label)
                ax.plot([p.l0 for p in line], [p.fvu for p in line], label=label or "autoencoder", linewidth=1, **style)
            _mark(ax, frontier(points))
            panel = FVU._replace(title=f"{place} ({_median_of(members)})" if by_kind else place)
            dress(ax, panel, [p.fvu for p in points])
            ax.set_ylabel(f"FVU, {FVU.unit}")
            ax.set_xlabel(f"L0, {L0.unit}")
            rescale(ax, "x", [p.l0 for p in points], may_be_log=True)
        for ax in panels[len(places) :]:
            ax.set_visible(False)
        legend_below(figure)
    return figure


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats: none has as few active features and a smaller FVU, by L0."""
    best: list[Point] = []
    for point in sorted(points):
        if not best or point.fvu < best[-1].fvu:
            best.append(point)
    return best


def _mark(ax: Axes, best: Sequence[Point]) -> None:
    xs, ys = [p.l0 for p in best], [p.fvu for p in best]
    ax.plot(xs, ys, drawstyle="steps-post", color=MUTED, linewidth=3, alpha=0.35, zorder=1)
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.8}
    ax.plot(xs, ys, linestyle="none", label="frontier", **ring)


def _points(members: Sequence[Trained], names: dict[Hashable, str]) -> list[Point]:
    points = []
    for settings, group in replicates(members):
        l0, fvu = (middle(one.figure(name) for one in group) for name in ("l0", "fvu"))
        if l0 is not None and fvu is not None and fvu > 0:
            points.append(Point(l0, fvu, names[str(settings)]))
    return points


def _names(trained: Sequence[Trained]) -> dict[Hashable, str]:
    """Return the label of the line that each set of settings is on."""
    ways = [settings for settings, _ in replicates(trained)]
    untraced = [{name: value for name, value in way.items() if name not in (*TRACED, "part")} for way in ways]
    return dict(zip(map(str, ways), labels(untraced), strict=True))


def _median_of(members: Sequence[Trained]) -> str:
    n = len({one.site for one in members})
    return f"median of {n} layers" if n > 1 else str(members[0].site)
