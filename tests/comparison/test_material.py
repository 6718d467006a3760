from __future__ import annotations

import pandas as pd

from refusal.comparison.material import gather
from refusal.models.planted_plan import Plan
from tests.comparison.planted_study import plant
from tests.comparison.test_discover import CHOSEN, SETTINGS, Store


def test_augmented_prompts_are_no_observations_of_their_own() -> None:
    study = plant(Plan(n_layers=4), categories=CHOSEN, n=4)

    def augmented(table: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([table, table.assign(variant="case_lower", id="x")])

    given = Store(study, augmented)
    assert len(given.prompts()) == 2 * len(study.prompts)
    material = gather(study.chat, given, {}, SETTINGS)
    assert sorted(material.table["id"]) == sorted(prompt.id for prompt in study.prompts)
    assert len(material.contrast.writes) == len(study.prompts)
