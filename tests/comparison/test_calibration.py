"""The index agrees with planted truth, over models that differ in everything else.

Truth is known in closed form from the written weights. Nothing in the measurement may be chosen to suit this family;
only ``verdict.RESIDUAL_SD`` is what remains of index - truth in it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from refusal.comparison.verdict import RESIDUAL_SD
from refusal.models.planted_plan import Plan
from refusal.prompts.prompt import CATEGORIES
from tests.comparison.planted_study import SYSTEM_TEMPLATE, plant

MODULARITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
GROUPS = (CATEGORIES[:4], CATEGORIES[4:7], CATEGORIES[7:])
OTHERWISE = {"n_layers": 8, "decision_layer": 4, "decoy": 1.0, "noise": 0.1, "seed": 3}


def errors(cases: list[tuple[Plan, dict[str, Any]]]) -> np.ndarray:
    """Return index - truth of each model, at 20 prompts a category and split."""
    studies = [plant(plan, n=20, **options) for plan, options in cases]
    found = np.array([study.index - study.truth for study in studies])
    print(found.round(3).tolist())
    print(f"index - truth: mean {found.mean():+.4f}, standard deviation {found.std():.4f}, ", end="")
    print(f"root mean square {np.sqrt((found**2).mean()):.4f}, largest {np.abs(found).max():.4f}")
    return found


@pytest.mark.slow
def test_the_index_is_the_planted_truth_over_a_large_family() -> None:
    makes = [
        ({"noise": 0.05}, {}),
        (OTHERWISE, {"template": SYSTEM_TEMPLATE}),
        ({"n_layers": 10, "decision_layer": 6, "noise": 0.1}, {}),
        ({"n_layers": 5, "decision_layer": 3, "decoy": 0.5, "noise": 0.02}, {"template": SYSTEM_TEMPLATE}),
    ]
    grid = product(makes, (None, GROUPS), MODULARITIES)
    cases = [
        (Plan(**{**plan, "modularity": m, "groups": groups, "seed": 100 + i}), {**options, "words": 100 + i})
        for i, ((plan, options), groups, m) in enumerate(grid)
    ]
    assert len(cases) == 40
    found = errors(cases)
    assert np.abs(found).mean() <= 0.05
    assert np.abs(found).max() <= 0.1
    assert abs(found.mean()) <= 0.01  # no bias
    assert found.std() == pytest.approx(RESIDUAL_SD, rel=0.25)
    assert (np.abs(found) <= 1.96 * RESIDUAL_SD).mean() >= 0.9
