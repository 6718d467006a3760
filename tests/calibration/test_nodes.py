"""Causal methods find the planted nodes and leave the decoy; correlation takes it."""

from __future__ import annotations

import numpy as np
import pytest

from refusal.calibration.family import draw_family
from refusal.calibration.nodes import area_under_roc, measure, planted_nodes
from refusal.models.sites import parse_site


@pytest.mark.parametrize(
    ("strength", "area"),
    [([3, 2, 1, 0], 1.0), ([0, 1, 2, 3], 0.0), ([1, 1, 1, 1], 0.5), ([3, 1, 2, 0], 0.75), ([2, 0, 0, 0], 0.75)],
)
def test_the_roc_area_is_how_often_a_node_is_the_stronger(strength: list[float], area: float) -> None:
    assert area_under_roc(np.array(strength), np.array([True, True, False, False])) == area


def test_planted_nodes_are_what_is_written_and_read() -> None:
    members = {member.kind: member for member in draw_family(0, 14)}
    for kind in ("groups", "joint"):
        member = members[kind]
        layer = member.plan.decision_layer
        of_first = planted_nodes(member)[member.categories[0]]
        detected = of_first[parse_site(f"mlp_{layer - 1}")]
        assert detected == ([] if kind == "joint" else [f"detected {member.categories[0]}"])
        assert set(of_first[parse_site(f"mlp_{layer}")]) <= {"shared", "group 0"}


def test_causal_methods_leave_the_decoy_and_correlation_takes_it() -> None:
    found = measure(draw_family(0, 1, small=True)[0])["methods"]
    for method in ("atp", "ig", "exact"):
        assert found[method]["auc"] >= 0.95
        assert found[method]["decoy"] == 0
    assert found["stats"]["decoy"] == 1
    assert found["stats"]["auc"] < found["atp"]["auc"]
