"""Each of the four traps is named in the report where it applies, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refusal.report.study import Study
from refusal.report.traps import traps

UNION = "One direction that opens every category proves nothing"
LATE = "The last layers look shared in every model"
STREAM = "The residual stream carries detection along"
DETECTION = "Detection looks modular in every model"
GATHERING = "Gathering evidence is not deciding"


def measured(
    study: Study, *names: str, start: int | None = 2, early: float | None = None, late: float = 0.0
) -> dict[str, str]:
    """The traps of a study with these sites, of six layers; 0 to 4 have a vote; the index is 0.5."""
    steps = [] if early is None else [{"start": 0, "index": early}]
    comparison: dict[str, Any] = {
        "sites": [{"site": name} for name in names],
        "last_voting_layer": 4,
        "transfer": {"direct": {"start": start, "by_start": steps}},
    }
    verdict = {"index": 0.5, "layer": start, "late_share": late}
    return dict(traps(replace(study, comparison=comparison, verdict=verdict)))


def test_the_fourth_is_always_named(studies: dict[str, Study]):
    assert list(measured(studies["bare"], "mlp_2", "attention_4")) == [UNION]
    assert list(measured(studies["bare"], start=None)) == [UNION]


@pytest.mark.parametrize(("early", "looks"), [(0.98, "shared"), (0.1, "separate")])
def test_gathering_is_named_where_an_early_start_says_something_else(
    studies: dict[str, Study], early: float, looks: str
):
    found = measured(studies["bare"], "mlp_2", early=early)
    assert list(found) == [GATHERING, UNION]
    assert f"transfer is {early:.2f}: gathering evidence of harm looks {looks}" in found[GATHERING]
    assert found[GATHERING].endswith("N = 2.")
    assert list(measured(studies["bare"], "mlp_2", early=0.55)) == [UNION]


def test_detection_is_named_where_writes_before_the_decision_were_compared(studies: dict[str, Study]):
    found = measured(studies["bare"], "attention_1", "mlp_2")
    assert list(found) == [DETECTION, UNION]
    assert "before layer 2" in found[DETECTION]
    assert DETECTION not in measured(studies["bare"], "residuals_1", "mlp_2")


def test_the_residual_stream_is_named_where_it_was_compared(studies: dict[str, Study]):
    assert list(measured(studies["bare"], "residuals_3", "mlp_2")) == [STREAM, UNION]


def test_the_last_layers_are_named_where_they_were_compared_or_carry_the_effect(studies: dict[str, Study]):
    assert list(measured(studies["bare"], "mlp_5")) == [LATE, UNION]
    found = measured(studies["bare"], "mlp_2", late=0.18)
    assert list(found) == [LATE, UNION]
    assert "layers after 4 have no vote" in found[LATE]
    assert "18 % passes through" in found[LATE]
    assert LATE not in measured(studies["bare"], "mlp_4", late=0.05)


def test_a_whole_study_can_step_into_all(studies: dict[str, Study]):
    assert [lead for lead, _ in traps(studies["planted"])] == [GATHERING, DETECTION, STREAM, LATE, UNION]
    assert [lead for lead, _ in traps(studies["one_site"])] == [UNION]
