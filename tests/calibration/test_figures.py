"""Figures of made-up models, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from refusal.calibration.figures import by, confusion, direct_figures, is_clear, missed, node_figures, right_answer


def row(truth: float, index: float | None, width: float | None, verdict: str, kind: str = "simple") -> dict[str, Any]:
    bounded = index is not None and width is not None
    low, high = (index - width / 2, index + width / 2) if bounded else (None, None)  # type: ignore[operator]
    found = {"truth": truth, "index": index, "low": low, "high": high, "verdict": verdict, "seconds": 1.0}
    return {**found, "kind": kind}


ROWS = [
    row(1.0, 0.96, 0.1, "monolithic"),
    row(0.5, 0.52, 0.1, "mixed", "groups"),
    row(0.0, 0.06, 0.1, "inconclusive"),  # clear, so inconclusive is not right; its interval misses the truth
    row(0.75, 0.60, 0.1, "mixed"),  # wrong
    row(0.75, None, None, "inconclusive", "groups"),
]


@pytest.mark.parametrize(
    ("truth", "right", "clear"),
    [
        (0.05, "modular", True),
        (0.1, "modular", True),
        (0.2, "modular", False),
        (0.4, "mixed", True),
        (0.65, "mixed", False),
        (0.75, "monolithic", False),
        (0.9, "monolithic", True),
    ],
)
def test_the_right_answer_is_the_side_of_the_thresholds(truth: float, right: str, clear: bool) -> None:
    assert (right_answer(truth), is_clear(truth)) == (right, clear)


def test_figures_of_the_direct_reading() -> None:
    found = direct_figures(ROWS)
    assert (found["models"], found["clear"], found["without_interval"]) == (5, 3, 1)
    assert found["right_if_clear"] == pytest.approx(2 / 3)
    assert found["confidently_wrong"] == 1
    assert found["mean_error"] == pytest.approx((0.04 + 0.02 + 0.06 + 0.15) / 4)
    assert found["largest_error"] == pytest.approx(0.15)
    assert found["bias"] == pytest.approx((-0.04 + 0.02 + 0.06 - 0.15) / 4)
    assert found["coverage"] == pytest.approx(2 / 4)
    assert found["mean_width"] == pytest.approx(0.1)
    assert missed(found) == ["right_if_clear", "confidently_wrong", "mean_error", "largest_error", "coverage"]


def test_the_confusion_matrix_counts_every_model_once() -> None:
    found = confusion(ROWS)
    assert sum(sum(line.values()) for line in found.values()) == len(ROWS)
    assert found["monolithic"] == {"monolithic": 1, "mixed": 1, "modular": 0, "inconclusive": 1}


def test_figures_by_kind_are_those_of_its_models() -> None:
    groups, simple = by(ROWS, "kind", lambda one: one["kind"])
    assert (groups["kind"], groups["models"], groups["right_if_clear"]) == ("groups", 2, 1.0)
    assert (simple["kind"], simple["models"], simple["confidently_wrong"]) == ("simple", 3, 1)


def test_figures_of_nodes() -> None:
    def of(area: float, decoy: float) -> dict[str, Any]:
        return {"methods": {"atp": {"auc": area, "worst_auc": area - 0.1, "decoy": decoy}}}

    found = node_figures([of(1.0, 0.0), of(0.9, 0.5)])
    assert found == {"auc_atp": pytest.approx(0.95), "worst_auc_atp": 0.9, "decoy_atp": 0.25}
    assert node_figures([]) == {}
