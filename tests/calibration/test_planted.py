"""A planted study's truth is about the categories that can be measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refusal.calibration.planted import plant
from refusal.comparison.knockout import KnockOuts
from refusal.models.planted_plan import Plan
from refusal.prompts.prompt import CATEGORIES

ONE, SAME, OTHER = CATEGORIES[:3]


def test_a_category_that_is_never_refused_has_no_part_in_the_truth() -> None:
    study = plant(Plan(modularity=1.0, groups=((ONE, SAME), (OTHER,))), categories=(ONE, SAME, OTHER), n=6)
    assert study.truth == pytest.approx(2 / 6)
    refused = study.contrast.refused & (study.contrast.category != 2)
    contrast = replace(study.contrast, refused=refused)
    assert replace(study, knock_outs=KnockOuts(study.chat, contrast, study.knock_outs.tokens)).truth == 1
