"""Four ways of measuring that mislead, each on planted models whose truth is known, and what is done about each."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from refusal.comparison.directions import unit, write_directions
from refusal.comparison.knockout import Condition
from refusal.comparison.transfer import (
    by_category,
    index_of,
    measure_drops,
    own_drop,
    voting_layers,
)
from refusal.comparison.verdict import Verdict, decide
from refusal.models.hooks import Edit, reading
from refusal.models.planted_plan import Plan
from refusal.models.sites import Site
from refusal.prompts.prompt import CATEGORIES
from tests.comparison.planted_study import PlantedStudy, plant

GATHERS, DETECTS, DECIDES, STOP = 0, 1, 2, 5  # blocks of the simple planted model; voting ends before STOP


@cache
def simple(modularity: float) -> PlantedStudy:
    return plant(Plan(modularity=modularity), categories=CATEGORIES[:5], n=10)


def transfer(study: PlantedStudy, start: int, stop: int) -> float:
    knock_outs = study.knock_outs
    return index_of(
        measure_drops(knock_outs, write_directions(knock_outs.fit, stop), start, stop).matrix(), study.voting
    )


def test_trap_1_detection_looks_modular_and_gathering_shared_in_every_model() -> None:
    for modularity in (0.0, 1.0):
        study = simple(modularity)
        assert transfer(study, DETECTS, DETECTS + 1) == pytest.approx(0, abs=0.05)
        assert transfer(study, GATHERS, STOP) == pytest.approx(1, abs=0.05)
        assert study.direct.start == DECIDES  # hence the latest block from which on the own drop is still large
        assert study.index == pytest.approx(1 - modularity, abs=0.05)


def residual_transfer(study: PlantedStudy, layer: int) -> float:
    """The same knock-out made on the residual stream after a block instead of on what components write."""
    contrast, knock_outs, site = study.contrast, study.knock_outs, Site("residuals", layer)
    with torch.no_grad(), reading(study.chat.model, [site]) as read:
        study.chat.model(**study.chat.pad(list(contrast.prompts)).inputs())
    x = read[site][:, -1].numpy()
    fit = knock_outs.fit
    w, centre = unit(fit.difference(x)), fit.centre(x)

    def knock(a: int) -> Condition:
        def condition(rows: np.ndarray) -> dict[Site, Edit]:
            part, category = fit.part[rows], contrast.category[rows]
            off, around = torch.from_numpy(w[part, a])[:, None], torch.from_numpy(centre[part, category])[:, None]
            return {site: lambda value: value - ((value - around) * off).sum(-1, keepdim=True) * off}

        return condition

    n = len(contrast.categories)
    falls = knock_outs.falls([knock(a) for a in range(n)])
    return index_of(by_category(falls, knock_outs.category, n), study.voting)


def test_trap_2_the_residual_stream_carries_detection_along() -> None:
    monolithic = simple(0.0)
    assert transfer(monolithic, DECIDES, STOP) == pytest.approx(1, abs=0.05)
    assert residual_transfer(monolithic, DECIDES) < 0.8


def conclusion(study: PlantedStudy) -> Verdict:
    """The verdict, with an interval as narrow as on endless prompts."""
    direct, voting, index = study.direct, study.voting, study.index
    return decide(
        index=index,
        low=index - 0.04,
        high=index + 0.04,
        explained_share=own_drop(direct.index_drops.matrix(), voting) / study.contrast.effect()[voting].mean(),
        late_share=direct.late_share,
        n_voting=len(voting),
        prompts_per_category=10,
    )


@pytest.mark.parametrize("n_layers", [5, 8])
@pytest.mark.parametrize("modularity", [0.0, 0.5])
def test_trap_3_a_model_that_decides_in_its_last_fifth_is_inconclusive(n_layers: int, modularity: float) -> None:
    # There, knocking out detection stops refusal, too, and looks modular whatever the truth (where detection comes as
    # late, gathering, which looks shared); the effect passes through what the late blocks write.
    for decision_layer in range(voting_layers(n_layers), n_layers):
        plan = Plan(modularity=modularity, n_layers=n_layers, decision_layer=decision_layer)
        found = conclusion(plant(plan, categories=CATEGORIES[:4], n=6))
        assert found.verdict == "inconclusive"
        assert found.reason.endswith("of the effect passes through the last fifth of the blocks")


@pytest.mark.parametrize("n_layers", [5, 8])
@pytest.mark.parametrize(("modularity", "word"), [(0.0, "monolithic"), (0.5, "mixed"), (1.0, "modular")])
def test_a_model_that_decides_in_its_last_voting_block_has_a_verdict(n_layers: int, modularity: float, word: str):
    plan = Plan(modularity=modularity, n_layers=n_layers, decision_layer=voting_layers(n_layers) - 1)
    study = plant(plan, categories=CATEGORIES[:4], n=6)
    assert conclusion(study).verdict == word
    assert study.direct.late_share == pytest.approx(0, abs=0.1)


def test_trap_4_one_direction_from_all_categories_opens_them_all_in_a_modular_model() -> None:
    study = simple(1.0)
    contrast, knock_outs = study.contrast, study.knock_outs
    gap = contrast.writes[contrast.refused].mean(0) - contrast.writes[~contrast.refused].mean(0)
    shape = (knock_outs.fit.n_parts, len(contrast.categories), *gap.shape)
    union = np.broadcast_to(unit(gap), shape)
    (falls,) = knock_outs.falls([knock_outs.off(union, DECIDES, STOP)])
    assert falls.mean() / contrast.effect().mean() > 0.9
    assert (contrast.score[knock_outs.rows] - falls < 0).all()  # not one refusal is left
    assert transfer(study, DECIDES, STOP) == pytest.approx(0, abs=0.05)  # though categories share nothing
