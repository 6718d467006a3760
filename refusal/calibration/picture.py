"""The calibration as a picture: index against truth with intervals, and the error of each kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE
from refusal.style import BLUE, INK, LINE, MUTED, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLERATED = 0.1


def calibration_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the models; those without chatter in blue, those with it in orange."""
    from matplotlib.figure import Figure

    measured = [row for row in rows if row["index"] is not None]
    with styled():
        figure = Figure(figsize=(9.5, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _index_against_truth(left, measured)
        _error_by_kind(right, measured)
    return figure


def _index_against_truth(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for threshold in (MODULAR_BELOW, MONOLITHIC_ABOVE):
        ax.axhline(threshold, color=LINE, zorder=0)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
    for label, colour, chosen in (
        ("the same on every prompt", BLUE, [row for row in rows if not row["plan"]["chatter"]]),
        ("noise from prompt to prompt", ORANGE, [row for row in rows if row["plan"]["chatter"]]),
    ):
        shift = np.linspace(-0.012, 0.012, max(1, len(chosen)))  # so that equal truths do not hide each other
        x = np.array([row["truth"] for row in chosen]) + shift[: len(chosen)]
        y = [row["index"] for row in chosen]
        bounds = [
            [row["index"] - row["low"] if row["low"] is not None else 0 for row in chosen],
            [row["high"] - row["index"] if row["high"] is not None else 0 for row in chosen],
        ]
        ax.errorbar(x, y, yerr=bounds, fmt="o", markersize=3, linewidth=0.7, color=colour, label=label)
    ax.set(xlabel="truth", ylabel="index, with 95 % interval", title="Index against truth")
    ax.legend(loc="lower right")


def _error_by_kind(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    kinds = sorted({row["kind"] for row in rows})
    ax.axvspan(-TOLERATED, TOLERATED, color=LINE, alpha=0.4, linewidth=0)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    for line, kind in enumerate(kinds):
        errors = [row["index"] - row["truth"] for row in rows if row["kind"] == kind]
        ax.plot(errors, np.full(len(errors), line), "|", color=INK, markersize=9)
    ax.set_yticks(range(len(kinds)), kinds)
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set(xlabel="index - truth", title="Error by kind of model")
