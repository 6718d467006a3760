"""Jobs by what they do for safe and for toxic prompts: for studies of how the training rows are chosen.

For each side, on held-out prompts, medians over sites: FVU (of the side's own variance), L0, features that fire on
none of its rows, and the share of the refusal score that is left with the autoencoder in its site's place. For the job
as a whole: rows that were seen at a site (all its autoencoders together), the circuits' faithfulness (median over
categories), and the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from refusal.sae.figures.panels import DEAD, FVU, L0, Panel, grid, legend_below, rescale
from refusal.sae.history import middle
from refusal.style import BLUE, INK, MUTED, ORANGE, styled
from refusal.sweeps.job import Comparison, Job, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES = {"safe": BLUE, "toxic": ORANGE}
BY_SIDE = {
    "fvu": FVU,
    "l0": L0,
    "dead": DEAD._replace(unit="share that fires on none of the rows"),
    "recovered": Panel("", "Recovered refusal", "share of the refusal score"),
}
OFFSETS = {"safe": (-0.12, "o"), "toxic": (0.12, "D"), "whole": (0.0, "s")}
WHOLE = {
    "faithfulness": Panel("", "Faithfulness of circuits", "share of the refusal score kept"),
    "index": Panel("", "Monolithicity index", "0: modular, 1: monolithic"),
}


def compare(jobs: Sequence[Job]) -> Comparison:
    """Compare jobs by safe and toxic prompts."""
    rows = [_row(job) for job in jobs]
    return Comparison(rows, _figure(jobs, rows), "strata")


def _row(job: Job) -> Row:
    return {
        **job.head,
        "rows": _rows_at_a_site(job),
        **{f"fvu_{side}": job.heldout("fvu", side) for side in SIDES},
        **{f"l0_{side}": job.heldout("l0", side) for side in SIDES},
        **{f"dead_{side}": job.heldout("dead_fraction", side) for side in SIDES},
        **{f"recovered_{side}": job.recovered(side) for side in SIDES},
        "faithfulness": job.faithfulness,
        "index": job.verdict.get("index"),
    }


def _rows_at_a_site(job: Job) -> float | None:
    """Return how many training rows all autoencoders of a site and seed have seen, the median over them."""
    seen: Counter[object] = Counter()
    for one in job.saes.values():
        seen[one.site, one.history.get("seed")] += one.rows or 0
    return middle(seen.values())


def _figure(jobs: Sequence[Job], rows: Sequence[Row]) -> Figure:
    """Draw a line of the panel for each job: its safe and its toxic side, or the one figure of the whole."""
    names = [job.label for job in jobs]
    panels = [*BY_SIDE.items(), *WHOLE.items()]
    with styled():
        title = "Safe and toxic prompts, held out, by how training rows were chosen"
        size = (3.0, max(1.2, 0.38 * len(jobs)))
        figure, axes = grid(title, 2, 3, panel=size, legend=[*SIDES, "whole"], left=0.45 + 0.075 * max(map(len, names)))
        flat = [ax for line in axes for ax in line]
        for ax, (key, panel) in zip(flat, panels, strict=True):
            _draw(ax, key, panel, rows)
        for i, ax in enumerate(flat):
            ax.set_yticks(range(len(names)), names if i % 3 == 0 else [""] * len(names))
            ax.set_ylim(len(names) - 0.5, -0.5)
        legend_below(figure)
    return figure


def _draw(ax: Axes, key: str, panel: Panel, rows: Sequence[Row]) -> None:
    columns = {f"{key}_{side}": (side, colour) for side, colour in SIDES.items()} if key in BY_SIDE else {}
    columns = columns or {key: ("whole", INK)}
    shown: list[float] = []
    for column, (label, colour) in columns.items():
        lower, marker = OFFSETS[label]  # so that equal values do not hide each other
        points = [(value, i + lower) for i, row in enumerate(rows) if isinstance(value := row[column], (int, float))]
        ax.plot([x for x, _ in points], [y for _, y in points], marker, color=colour, label=label)
        shown += [x for x, _ in points]
    ax.set_title(panel.title)
    ax.set_xlabel(panel.unit)
    rescale(ax, "x", shown, may_be_log=panel.may_be_log)
    if not shown:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color=MUTED)
