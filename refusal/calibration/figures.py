"""From the models' lines to the figures of the calibration, each with its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE

Row = Mapping[str, Any]
VERDICTS = ("monolithic", "mixed", "modular", "inconclusive")
CAUSAL = ("atp", "ig", "exact")
TARGETS: dict[str, tuple[float, float]] = {
    "right_if_clear": (0.95, 1.0),
    "confidently_wrong": (0, 0),
    "mean_error": (0, 0.05),
    "largest_error": (0, 0.1),
    "coverage": (0.9, 1.0),
    "mean_width": (0, 0.2),
    "false_positives_distinguishable": (0.035, 0.065),
    "false_positives_above_chance": (0.035, 0.065),
    **{f"auc_{method}": (0.95, 1.0) for method in CAUSAL},
    **{f"decoy_{method}": (0, 0.05) for method in CAUSAL},
    "decoy_stats": (0.5, 1.0),
}
"""What each figure should be, both ends included."""


def right_answer(truth: float) -> str:
    """Return the verdict that is right for a true index."""
    return "monolithic" if truth > MONOLITHIC_ABOVE else "modular" if truth < MODULAR_BELOW else "mixed"


def is_clear(truth: float) -> bool:
    """Whether a verdict must be found: at most 0.1, at least 0.9, or between 0.4 and 0.6."""
    tolerance = 1e-9
    return truth <= 0.1 + tolerance or truth >= 0.9 - tolerance or 0.4 - tolerance <= truth <= 0.6 + tolerance


def direct_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the models' ``direct`` readings come to; None where no model has what it takes."""
    clear = [row for row in rows if is_clear(row["truth"])]
    errors = np.array([abs(row["index"] - row["truth"]) for row in rows if row["index"] is not None])
    bounded = [row for row in rows if row["low"] is not None]
    wrong = [row for row in rows if row["verdict"] not in ("inconclusive", right_answer(row["truth"]))]
    return {
        "models": len(rows),
        "clear": len(clear),
        "right_if_clear": _mean([row["verdict"] == right_answer(row["truth"]) for row in clear]),
        "confidently_wrong": len(wrong),
        "mean_error": _mean(errors),
        "largest_error": float(errors.max()) if len(errors) else None,
        "coverage": _mean([row["low"] <= row["truth"] <= row["high"] for row in bounded]),
        "mean_width": _mean([row["high"] - row["low"] for row in bounded]),
        "bias": _mean([row["index"] - row["truth"] for row in rows if row["index"] is not None]),
        "without_interval": len(rows) - len(bounded),
        "slowest_seconds": max((row["seconds"] for row in rows), default=None),
    }


def confusion(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return how many models of each right answer got each verdict."""
    return {
        right: {
            verdict: sum(row["verdict"] == verdict and right_answer(row["truth"]) == right for row in rows)
            for verdict in VERDICTS
        }
        for right in VERDICTS[:3]
    }


def by(rows: Sequence[Row], name: str, value: Callable[[Row], Any]) -> list[dict[str, Any]]:
    """Return the figures of the models of each value, in order."""
    kept = ("models", "clear", "right_if_clear", "confidently_wrong", "mean_error", "largest_error")
    kept += ("coverage", "mean_width")
    lines = []
    for found in sorted({value(row) for row in rows}):
        figures = direct_figures([row for row in rows if value(row) == found])
        lines.append({name: found, **{key: figures[key] for key in kept}})
    return lines


def node_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the mean and worst ROC area of each method, and how often it takes a decoy for a node."""
    methods = list(rows[0]["methods"]) if rows else []
    return {
        name: value
        for method in methods
        for name, value in {
            f"auc_{method}": _mean([row["methods"][method]["auc"] for row in rows]),
            f"worst_auc_{method}": min(row["methods"][method]["auc"] for row in rows),
            f"decoy_{method}": _mean([row["methods"][method]["decoy"] for row in rows]),
        }.items()
    }


def study_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how far each method's ``circuit`` reading is from the truth, and how faithful its circuits are."""
    figures = {}
    for method in rows[0]["studies"] if rows else ():
        studies = [(row["truth"], row["studies"][method]) for row in rows]
        errors = [abs(one["readings"]["circuit"]["index"] - truth) for truth, one in studies if _has_circuit(one)]
        figures[f"circuit_error_{method}"] = _mean(errors)
        figures[f"largest_circuit_error_{method}"] = max(errors, default=None)
        faithful = [one["faithfulness"] for _, one in studies if one["faithfulness"] is not None]
        figures[f"faithfulness_{method}"] = _mean(faithful)
    return figures


def _has_circuit(study: Row) -> bool:
    circuit = study["readings"]["circuit"]
    return circuit is not None and circuit["index"] is not None


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the names of the figures that are known and miss their targets."""
    known = {name: figures[name] for name in TARGETS if figures.get(name) is not None}
    return [name for name, value in known.items() if not TARGETS[name][0] <= value <= TARGETS[name][1]]


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
