"""An inconclusive verdict says how many more prompts would settle it: on planted models, so many do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from refusal.comparison.readings import reading
from refusal.comparison.transfer import own_drop
from refusal.comparison.verdict import Verdict, decide
from refusal.models.planted_plan import Plan
from refusal.prompts.prompt import CATEGORIES
from tests.comparison.planted_study import plant

FEW, MOST_MORE = 6, 60  # refused prompts a category, and so many more at most, for the time it takes
MODULARITIES, DRAWS, CHATTER = (0.4, 0.42, 0.45, 0.48), range(6), 3.0


def verdict(modularity: float, n: int, draw: int) -> Verdict:
    """The verdict over a model whose writes vary from prompt to prompt, from n prompts of each kind a category."""
    study = plant(Plan(modularity=modularity, chatter=CHATTER), categories=CATEGORIES[:4], n=n, draw=draw)
    direct, voting = study.direct, study.voting
    found = reading(direct.index_drops, voting, bootstrap=500, rng=np.random.default_rng(0), halved=direct.halved)
    return decide(
        index=found["index"],
        low=found["low"],
        high=found["high"],
        explained_share=own_drop(direct.index_drops.matrix(), voting) / study.contrast.effect()[voting].mean(),
        late_share=direct.late_share,
        n_voting=len(voting),
        prompts_per_category=int(study.contrast.count(refused=True)[voting].min()),
    )


@pytest.mark.slow
def test_so_many_more_prompts_settle_what_few_left_open() -> None:
    # The figure takes the index for right, which few prompts leave uncertain: it holds mostly, not always.
    settled = []
    for modularity, draw in product(MODULARITIES, DRAWS):
        more = verdict(modularity, FEW, draw).more_prompts
        if more is not None and more <= MOST_MORE:
            settled.append(verdict(modularity, FEW + more, draw).verdict != "inconclusive")
    assert len(settled) >= 3
    assert np.mean(settled) >= 0.75
