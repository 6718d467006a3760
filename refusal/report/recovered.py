"""The refusal that survives with an SAE in its site's place: a panel for each kind of site, a dot for each split.

1 is all of the refusal that passes through the site, 0 what is left when the site says the same of every prompt. Where
that changes next to nothing, nothing can be recovered: a grey cross at the bottom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from refusal.models.sites import KINDS, Site, parse_site
from refusal.prompts.prompt import SPLITS
from refusal.style import BLUE, GREEN, LINE, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {"safe": (GREEN, "s", -0.16), "hard": (ORANGE, "^", 0.0), "toxic": (BLUE, "o", 0.16)}
LOWEST, HIGHEST = -0.25, 1.25  # dots beyond are drawn hollow at the edge


def recovered_figure(saes: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Return the figure, or None where nothing was recovered at any site.

    Args:
        saes: ``saes`` of ``quality.json``: for each name the ``site``, and ``splice`` with its ``splits``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = [(parse_site(one["site"]), _values(one)) for one in saes.values()]
    if all(value is None for _, values in found for value in values.values()):
        return None
    kinds = [kind for kind in KINDS if any(site.kind == kind for site, _ in found)]
    with styled():
        figure = Figure(figsize=(1.2 + 2.4 * len(kinds), 2.9), layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            for level in (0, 1):
                axes.axhline(level, color=LINE if level == 0 else MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            for site, values in found:
                if site.kind == kind:
                    _draw(axes, site, values)
            axes.set_title(kind)
            axes.set_xlabel("layer")
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
            axes.margins(x=0.12)
            axes.set_ylim(LOWEST - 0.08, HIGHEST + 0.05)
            axes.set_yticks([0, 0.5, 1])
        panels[0].set_ylabel("refusal recovered")
        looks = [(f"{split} prompts", colour, mark) for split, (colour, mark, _) in LOOKS.items()]
        looks.append(("site does not matter", MUTED, "x"))
        handles = [panels[0].plot([], [], mark, color=colour, label=label)[0] for label, colour, mark in looks]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.1, fontsize=8)
    return figure


def _values(sae: Mapping[str, Any]) -> dict[str, float | None]:
    return {split: (sae["splice"]["splits"].get(split) or {}).get("recovered_refusal") for split in SPLITS}


def _draw(axes: Axes, site: Site, values: Mapping[str, float | None]) -> None:
    """One SAE: a dot a split, side by side."""
    for split, value in values.items():
        colour, mark, offset = LOOKS[split]
        at = site.layer + offset
        if value is None:
            axes.plot([at], [LOWEST], "x", color=MUTED, markersize=3, alpha=0.7)
            continue
        shown = min(max(value, LOWEST), HIGHEST)
        axes.plot([at], [shown], mark, color=colour, markersize=5, markerfacecolor=colour if shown == value else "none")
