"""The three named heatmaps: how alike the categories' circuits are, and how far knocking out one stops the others.

Categories are ordered by clustering, the same order in every picture; values stand in the cells; the noise ceiling
(what a category reaches with itself, from two halves of its prompts) is a narrow column of its own; the colour scale
is fixed to [0, 1]; grey is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from refusal.artifacts import clean_name
from refusal.report.matrices import cell_text, short
from refusal.report.panels import (
    HOW_TO_READ_CROSS,
    HOW_TO_READ_TRANSFER,
    Panel,
    cross_panel,
    separate_panels,
    similarity_panels,
)
from refusal.style import INK, MUTED, UNDEFINED, colour_of, ink_on, save_png, scale, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGE, HEAD, GAP = 0.15, 0.85, 0.16  # inches: around everything, above the cells, before the ceiling
EMPTY = 3.9  # inches: the width of a panel that has only a sentence to show
LINE_HEIGHT, LETTER, TITLE_LETTER = 0.19, 0.065, 0.1  # inches: a note's line, a letter in it, a letter in the title
NO_VOTE = "* has no vote: too few of its prompts were refused or complied with"


@dataclass(frozen=True)
class Place:
    """The measures of a figure in inches: a cell's side, the room for names at the left, all cells' side, the foot."""

    cell: float
    names: float
    side: float
    foot: float

    def width(self, panel: Panel) -> float:
        """Return the width that a panel takes, with its names, its ceiling and the gap after it."""
        assert panel.matrix is not None
        if not panel.matrix.defined():
            return EMPTY
        return self.names + self.cell * len(panel.matrix.labels) + (GAP + self.cell) * bool(panel.matrix.ceiling) + EDGE


def draw_heatmaps(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the study's named heatmaps into ``folder``; the two of separate circuits only where there are some."""
    name = clean_name(comparison["model"])
    written = [save_png(similarity_heatmap(comparison), Path(folder) / f"{name}_similarity_heatmap.png")]
    if comparison.get("separate"):
        separate = save_png(separate_heatmap(comparison), Path(folder) / f"{name}_safe_toxic_separate_heatmap.png")
        cross = save_png(cross_heatmap(comparison), Path(folder) / f"{name}_safe_vs_toxic_cross_heatmap.png")
        written += [separate, cross]
    return written


def similarity_heatmap(comparison: Mapping[str, Any]) -> Figure:
    """Draw the circuits' similarity beside causal transfer."""
    title = f"{short(comparison['model'], 40)}: do the categories refuse by the same means?"
    panels = similarity_panels(comparison)
    return _figure(title, panels, HOW_TO_READ_TRANSFER if panels[1].matrix else ())


def separate_heatmap(comparison: Mapping[str, Any]) -> Figure:
    """Draw the similarity within the safe and within the toxic circuits."""
    title = f"{short(comparison['model'], 40)}: circuits of safe and of toxic prompts, cosine"
    return _figure(title, separate_panels(comparison))


def cross_heatmap(comparison: Mapping[str, Any]) -> Figure:
    """Draw safe circuits against toxic ones, and how to read it."""
    title = f"{short(comparison['model'], 40)}: does refusal use the features of safe prompts?"
    return _figure(title, [cross_panel(comparison)], HOW_TO_READ_CROSS)


def _figure(title: str, panels: Sequence[Panel], how_to_read: Sequence[str] = ()) -> Figure:
    """Place the panels side by side, in inches: cells and text keep their size for 2 and for 10 categories."""
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if panel.matrix]
    defined = [panel.matrix for panel in shown if panel.matrix and panel.matrix.defined()]
    names = [short(name) for matrix in defined for name in matrix.labels]
    n = max((len(matrix.labels) for matrix in defined), default=1)
    cell = min(max(4.4 / n, 0.44), 0.8)
    longest = max([len("noise ceiling"), *map(len, names)])
    place = Place(cell, names=0.42 + 0.075 * longest, side=cell * n, foot=0.0)
    widths = [place.width(panel) for panel in shown]
    width = max(EDGE + sum(widths) + 0.95, 2 * EDGE + TITLE_LETTER * len(title))
    notes = [
        *(how_to_read if defined else ()),
        *(f"{panel.title}: not in this study." for panel in panels if not panel.matrix),
    ]
    notes += [NO_VOTE] if any(panel.marks for panel in shown) else []
    lines = [line for note in notes for line in wrap(note, int((width - 2 * EDGE) / LETTER))]
    place = replace(place, foot=(0.4 + 0.06 * longest if defined else EDGE) + LINE_HEIGHT * len(lines))
    size = (width, HEAD + place.side + place.foot)
    with styled():
        figure = Figure(figsize=size)
        figure.text(EDGE / size[0], 1 - 0.12 / size[1], title, ha="left", va="top", size=11.5, weight="bold")
        left = EDGE
        for panel, taken in zip(shown, widths, strict=True):
            _draw(figure, panel, left, place)
            left += taken
        if defined:
            _colour_bar(figure, left + 0.05, place.foot, place.side)
        figure.text(EDGE / size[0], EDGE / size[1], "\n".join(lines), ha="left", va="bottom", size=8.5, linespacing=1.4)
    return figure


def _draw(figure: Figure, panel: Panel, left: float, place: Place) -> None:
    """Draw one panel whose left edge (names included) is at ``left`` inches."""
    from matplotlib.patches import Rectangle

    assert panel.matrix is not None
    matrix = panel.matrix
    n, names = len(matrix.labels), [short(name) + panel.marks.get(name, "") for name in matrix.labels]
    side, top = n * place.cell, place.foot + place.side
    width, height = figure.get_size_inches()
    x = (left + 0.02) / width
    figure.text(x, (top + 0.28) / height, panel.title, weight="bold", size=10)
    figure.text(x, (top + 0.1) / height, panel.subtitle, color=MUTED, size=8.5)
    if not matrix.defined():
        figure.text(x, (top + 0.18) / height, fill(panel.if_empty, 48), va="top", size=9, linespacing=1.5)
        return
    axes = _axes(figure, left + place.names, top - side, side, side)
    draw_cells(axes, matrix.values)
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor", size=8.5)
    axes.set_yticks(range(n), names, size=8.5)
    axes.set_xlabel(panel.across, color=MUTED)
    axes.set_ylabel(panel.down, color=MUTED)
    if panel.frame_diagonal:
        for i in range(n):
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.4, zorder=4))
    if matrix.ceiling:
        column = _axes(figure, left + place.names + side + GAP, top - side, place.cell, side)
        draw_cells(column, [[value] for value in matrix.ceiling])
        column.set_xticks([0], ["noise ceiling"], rotation=45, ha="right", rotation_mode="anchor", size=8.5)
        column.set_yticks([])


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches."""
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def draw_cells(axes: Axes, values: Sequence[Sequence[float | None]], *, numbers: bool = True) -> None:
    """Colour the cells on the fixed scale; with ``numbers``, write each value in ink that can be read on it."""
    cells = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    axes.imshow(np.ma.masked_invalid(cells), cmap=scale(), vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(values if numbers else ()):
        for j, value in enumerate(row):
            axes.text(j, i, cell_text(value), ha="center", va="center", size=8, color=ink_on(colour_of(value)))
    axes.set_xticks(np.arange(cells.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(cells.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colour_bar(figure: Figure, left: float, bottom: float, height: float) -> None:
    """The scale itself, with the verdict's two thresholds among its ticks, and what grey means."""
    from matplotlib.cm import ScalarMappable

    tall = min(height, 2.6)
    axes = _axes(figure, left, bottom + height - tall, 0.14, tall)
    bar = figure.colorbar(ScalarMappable(cmap=scale()), cax=axes, ticks=[0, 0.3, 0.7, 1])
    bar.outline.set_visible(False)  # type: ignore[operator]
    axes.tick_params(length=0, labelsize=8)
    axes.set_title("shared", size=8, weight="normal", loc="left")
    grey = _axes(figure, left, bottom + height - tall - 0.34, 0.14, 0.14)
    grey.set(facecolor=UNDEFINED, xticks=[], yticks=[])
    grey.text(1.35, 0.5, "undefined", transform=grey.transAxes, va="center", size=8)
    for spine in grey.spines.values():
        spine.set_visible(False)
