"""What happened in a training, step by step: loss, FVU, L0 and dead features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from refusal.sae.figures.panels import FVU, L0, Panel, dress, grid
from refusal.sae.history import in_words
from refusal.style import BLUE, GREEN, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    Panel("loss", "Loss", "squared error, unit variance", may_be_log=True),
    FVU,
    L0,
    Panel("dead_features", "Dead features", "features"),
)
HELDOUT = {"all": ("held-out, all positions", ORANGE), "last": ("held-out, last prompt position", GREEN)}


def training_figure(history: Mapping[str, Any]) -> Figure:
    """Draw a training by step; FVU and L0 of held-out rows, too.

    Args:
        history: The content of ``history.json``.
    """
    with styled():
        figure, axes = grid(_title(history), 2, 2, panel=(3.9, 1.95))
        for panel, ax in zip(PANELS, (ax for row in axes for ax in row), strict=True):
            _draw(ax, panel, history["train"], history["heldout"])
    return figure


def _draw(ax: Axes, panel: Panel, points: Sequence[Mapping[str, Any]], heldout: Mapping[str, Any]) -> None:
    drawn = [(point["step"], point[panel.key]) for point in points if _shows(point.get(panel.key), panel)]
    values = [value for _, value in drawn]
    if drawn:
        ax.plot(*zip(*drawn, strict=True), color=BLUE, label="training batch")
    for part, (label, colour) in HELDOUT.items():
        value = heldout.get(part, {}).get(panel.key)
        if _shows(value, panel):
            ax.axhline(value, color=colour, linestyle="--" if part == "all" else ":", label=label)
            values.append(value)
    dress(ax, panel, values)
    ax.set_xlabel("training step")
    if panel == FVU and ax.lines:
        ax.legend(fontsize=8)


def _shows(value: float | None, panel: Panel) -> bool:
    return value is not None and (value > 0 or not panel.may_be_log)


def _title(history: Mapping[str, Any]) -> str:
    facts = ("name", "part", "hidden_dim", "k", "seed")
    told = [in_words(key, history[key]) for key in facts if history.get(key) is not None]
    return f"{history['model']}, {history['site']}: {', '.join(told)}"
