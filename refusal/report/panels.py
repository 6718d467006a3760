"""What each heatmap shows: panels, a matrix each with the words around it, for the picture and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refusal.report.matrices import Matrix, cell_text, read_matrix, study_order
from refusal.report.sites import in_words

NO_CIRCUIT = {
    "safe": "No category has a circuit on safe prompts: they move the refusal score too little for one.",
    "hard": "No category has a circuit on hard prompts that were refused: there are none, or they move the score too "
    "little for one.",
    "toxic": "No category has a circuit on toxic prompts: they move the refusal score too little for one.",
}
HOW_TO_READ_TRANSFER = (
    "How to read transfer: how far the refusal score of the column's prompts falls when the row's direction is knocked "
    "out, as a share of the fall by their own direction. 1: one mechanism; 0: nothing shared.",
)
HOW_TO_READ_CROSS = (
    "How to read it: the framed diagonal compares safe and toxic prompts of one category.",
    "Over 0.7, refusal uses the features of safe prompts; under 0.3, it has its own.",
)


@dataclass(frozen=True)
class Panel:
    """One matrix of a figure and the words around it."""

    title: str
    subtitle: str
    across: str
    down: str
    matrix: Matrix | None
    marks: Mapping[str, str] = field(default_factory=dict)
    frame_diagonal: bool = False
    if_empty: str = "not measured"
    """What to say where no value is defined."""


def similarity_panels(comparison: Mapping[str, Any]) -> list[Panel]:
    """Return cosine similarity of the circuits (all chosen sites together), then the causal transfer matrix."""
    combined = comparison.get("combined") or {}
    direct = (comparison.get("transfer") or {}).get("direct") or {}
    cosine = _matrix((combined.get("measures") or {}).get("cosine"), comparison)
    sites = in_words(combined.get("sites") or [])
    marks = _marks(comparison)
    start = "" if direct.get("start") is None else f"knock-out from layer {direct['start']} on"
    return [
        Panel("Circuits: cosine of importances", sites, "", "", cosine, marks),
        Panel("Causal transfer", start, "refusal tested on", "knocked out", _matrix(direct, comparison), marks),
    ]


def separate_panels(comparison: Mapping[str, Any]) -> list[Panel]:
    """Return cosine similarity within the safe circuits, then within the toxic ones."""
    sides = {side: comparison["separate"][f"within_{side}"] for side in ("safe", "toxic")}
    return [
        Panel(
            f"Circuits of {side} prompts",
            _p_value(within),
            "",
            "",
            _matrix(within, comparison),
            _marks(comparison),
            if_empty=NO_CIRCUIT[side],
        )
        for side, within in sides.items()
    ]


def cross_panel(comparison: Mapping[str, Any]) -> Panel:
    """Return cosine similarity of each safe circuit (row) with each toxic circuit (column)."""
    cross = comparison["separate"]["cross"]
    matrix = _matrix(cross, comparison)
    mean = matrix.mean_diagonal() if matrix else None
    facts = ["" if mean is None else f"mean of the diagonal {cell_text(mean)}", _p_value(cross)]
    across, down = "circuit of toxic prompts", "circuit of safe prompts"
    within = _matrix(comparison["separate"]["within_safe"], comparison)
    return Panel(
        "Safe against toxic, cosine",
        ", ".join(filter(None, facts)),
        across,
        down,
        matrix,
        _marks(comparison),
        frame_diagonal=True,
        if_empty=NO_CIRCUIT["toxic" if within and within.defined() else "safe"],
    )


def _matrix(measure: Mapping[str, Any] | None, comparison: Mapping[str, Any]) -> Matrix | None:
    """A matrix in the study's one order of categories."""
    matrix = read_matrix(measure, comparison)
    return matrix.ordered(study_order(comparison)) if matrix else None


def _marks(comparison: Mapping[str, Any]) -> dict[str, str]:
    """The mark of each category that has no vote."""
    return {name: " *" for name in comparison["categories"] if name not in comparison["voting"]}


def _p_value(test: Mapping[str, Any]) -> str:
    """What the permutation test says of the overlap, empty where none was made."""
    return "" if test.get("p") is None else f"overlap above chance: p = {test['p']:.2g}"
