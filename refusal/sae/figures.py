"""Pictures of trainings: what happened step by step, and how the layers of a model compare.

Data in, a matplotlib Figure out; ``write_png`` puts it on the disk.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from refusal.artifacts import write_atomic
from refusal.models.sites import KINDS, parse_site

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73")  # Okabe and Ito (2008): colour-blind readers tell them apart
MUTED, GRID = "#636b78", "#d5d9e0"
LINES = ("-", "--", ":", "-.")
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "grid.color": GRID,
    "legend.frameon": False,
    "text.parse_math": False,  # names are data: a dollar sign is a dollar sign
}


class Panel(NamedTuple):
    """One set of axes."""

    key: str
    title: str
    unit: str
    is_log: bool


TRAINING = (
    Panel("loss", "Loss", "squared error, unit variance", True),
    Panel("fvu", "Fraction of variance unexplained (FVU)", "share of variance", True),
    Panel("l0", "L0", "active features a row", False),
    Panel("dead_features", "Dead features", "features", False),
)
LAYERS = (
    Panel("fvu", "Fraction of variance unexplained (FVU)", "share of variance", True),
    Panel("cosine", "Cosine of rows and reconstructions", "cosine", False),
    Panel("l0", "L0", "active features a row", False),
    Panel("dead_fraction", "Features that never fired", "share of features", False),
)


def training_figure(history: Mapping[str, Any]) -> Figure:
    """Draw a training: loss, FVU, L0 and dead features by step; of FVU and L0 the held-out figures, too."""
    with _styled():
        return _draw_training(history)


def layer_figure(model: str, histories: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the held-out figures of a model's autoencoders by layer: colours are kinds of site, lines are sizes."""
    with _styled():
        return _draw_layers(model, histories)


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all.

    Raises:
        InputError: The disk refuses to write.
    """
    buffer = io.BytesIO()
    with _styled():
        figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())
    return path


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a model may be named in any script
        yield


def _draw_training(history: Mapping[str, Any]) -> Figure:
    points: Sequence[Mapping[str, Any]] = history["train"]
    figure, axes = _panels(TRAINING, "training step")
    for panel, ax in zip(TRAINING, axes, strict=True):
        drawn = [point for point in points if _shows(point.get(panel.key), panel)]
        values = [float(point[panel.key]) for point in drawn]
        if drawn:
            ax.plot([point["step"] for point in drawn], values, color=COLOURS[0], label="training batch")
        else:
            _empty(ax)
        if panel.key == "fvu":
            _heldout_lines(ax, panel, history["heldout"])
        _scale(ax, panel, values)
    title = f"{history['model']}, {history['site']}: {history['hidden_dim']} features, k = {history['k']}"
    return _titled(figure, title)


def _draw_layers(model: str, histories: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    sizes = sorted({(history["hidden_dim"], history["k"]) for history in histories})
    figure, axes = _panels(LAYERS, "layer")
    for panel, ax in zip(LAYERS, axes, strict=True):
        shown: list[float] = []
        for colour, kind in zip(COLOURS, KINDS, strict=True):
            for i, size in enumerate(sizes):
                line = _by_layer(histories, kind, size, panel)
                label = kind if len(sizes) == 1 else f"{kind}, {size[0]} features, k = {size[1]}"
                if line:
                    style = {"color": colour, "linestyle": LINES[i % len(LINES)], "marker": "o", "markersize": 3}
                    ax.plot(*zip(*line, strict=True), label=label, **style)
                shown += [value for _, value in line]
        if not shown:
            _empty(ax)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(ax, panel, shown)
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8)
    return _titled(figure, f"{model}: autoencoders by layer, on held-out prompts")


def _panels(panels: Sequence[Panel], xlabel: str) -> tuple[Figure, list[Axes]]:
    """Make two by two axes; by hand, since matplotlib's automatic layouts take longer than all the drawing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6))
    axes: list[Axes] = list(figure.subplots(2, 2).flat)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.08, top=0.88, wspace=0.24, hspace=0.42)
    for panel, ax in zip(panels, axes, strict=True):
        ax.set_title(panel.title, loc="left", fontweight="bold")
        ax.set_xlabel(xlabel)
        ax.set_ylabel(panel.unit)
        ax.grid(visible=True, linewidth=0.5)
        ax.set_axisbelow(True)
    return figure, axes


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, x=0.09, y=0.97, ha="left", fontsize=12)
    return figure


def _heldout_lines(ax: Axes, panel: Panel, heldout: Mapping[str, Mapping[str, Any]]) -> None:
    named = {"all": "held-out, all positions", "last": "held-out, last prompt position"}
    for (part, label), colour in zip(named.items(), COLOURS[1:], strict=True):
        value = heldout.get(part, {}).get(panel.key)
        if value is not None and _shows(value, panel):
            ax.axhline(value, color=colour, linestyle="--", linewidth=1, label=label)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)


def _by_layer(
    histories: Sequence[Mapping[str, Any]], kind: str, size: tuple[int, int], panel: Panel
) -> list[tuple[int, float]]:
    found = {}
    for history in histories:
        site, value = parse_site(history["site"]), history["heldout"].get("all", {}).get(panel.key)
        if site.kind == kind and (history["hidden_dim"], history["k"]) == size and _shows(value, panel):
            found[site.layer] = value
    return sorted(found.items())


def _shows(value: float | None, panel: Panel) -> bool:
    return value is not None and (value > 0 or not panel.is_log)


def _scale(ax: Axes, panel: Panel, values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if panel.is_log and values:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif values:
        ax.set_ylim(min(0.0, 1.1 * min(values)), 1.1 * max(values) or 1.0)  # cosines may be negative


def _empty(ax: Axes) -> None:
    ax.text(0.5, 0.5, "nothing recorded", transform=ax.transAxes, ha="center", color=MUTED)
