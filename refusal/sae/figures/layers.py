"""How the autoencoders of a model compare from layer to layer: a row of panels for each kind of site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from refusal.models.sites import KINDS
from refusal.sae.figures.panels import DEAD, FVU, L0, Panel, dress, grid, legend_below, styles
from refusal.sae.history import Trained, labels, replicates
from refusal.style import styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (FVU, L0, DEAD)


def layer_figure(model: str, trained: Sequence[Trained]) -> Figure:
    """Draw the held-out figures of autoencoders by layer.

    A line is a way of training, named by what tells it from the others; several seeds of one are their median, and bars
    from the least to the greatest.
    """
    from matplotlib.ticker import MaxNLocator

    groups = replicates(trained)
    names = labels(settings for settings, _ in groups)
    kinds = [kind for kind in KINDS if any(one.site.kind == kind for one in trained)]
    layers = {one.site.layer for one in trained}
    with styled():
        title = f"{model}: autoencoders by layer, on held-out prompts"
        figure, axes = grid(title, len(kinds), len(PANELS), panel=(3.2, 2.1), legend=names if len(names) > 1 else ())
        look = styles(names)
        for column, panel in enumerate(PANELS):
            shown: list[float] = []
            for row, kind in enumerate(kinds):
                for name, (_, members) in zip(names, groups, strict=True):
                    there = [one for one in members if one.site.kind == kind]
                    shown += _line(axes[row][column], there, panel, name, look)
            for row, kind in enumerate(kinds):
                ax = axes[row][column]
                dress(ax, panel._replace(title=f"{kind}: {panel.title}"), shown)  # one scale for all kinds
                ax.set_xlabel("layer")
                ax.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
                ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(names) > 1:
            legend_below(figure)
    return figure


def _line(
    ax: Axes, members: Sequence[Trained], panel: Panel, name: str, look: Mapping[str, Mapping[str, Any]]
) -> list[float]:
    """Draw a way of training; return all values."""
    by_layer: dict[int, list[float]] = defaultdict(list)
    for one in members:
        if (value := one.figure(panel.key)) is not None:
            by_layer[one.site.layer].append(value)
    layers = sorted(by_layer)
    if layers:
        style = look[name]
        ax.plot(layers, [median(by_layer[layer]) for layer in layers], label=name, linewidth=1, **style)
        extremes = ([function(by_layer[layer]) for layer in layers] for function in (min, max))
        ax.vlines(layers, *extremes, colors=style["color"], linewidth=2.5, alpha=0.35)
    return [value for values in by_layer.values() for value in values]
