"""Autoencoders in the place of a planted model's sites: what changes, where, and how it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from refusal.activations.recipe import Recipe
from refusal.models.hooks import reading
from refusal.models.sites import Site
from refusal.models.tokens import INSTRUCTION, TEMPLATE
from refusal.sae.splice import Sample, Splicing, by_stratum, recovered
from tests.comparison.planted_study import SYSTEM_TEMPLATE, Plan, PlantedStudy, plant
from tests.sae.in_place import Onlooker, perfect, useless

STREAM, DECISION, NOTHING = Site("residuals", 1), Site("mlp", 2), Site("mlp", 0)
RECIPE = Recipe(sites=())


@pytest.fixture(scope="module")
def study() -> PlantedStudy:
    return plant(Plan(n_layers=4), categories=["hate", "privacy"], n=8, template=SYSTEM_TEMPLATE)


@pytest.fixture(scope="module")
def sample(study: PlantedStudy) -> Sample:
    return Sample(
        study.contrast.prompts,
        np.array([prompt.split for prompt in study.prompts]),
        np.array([prompt.category for prompt in study.prompts]),
        n_answered=len(study.prompts),
    )


def _splicing(study: PlantedStudy, sample: Sample, **change: Any) -> Splicing:
    options: dict[str, Any] = {"kinds": ("instruction", "template"), "recipe": RECIPE, "token_budget": 256}
    options["refusal_tokens"] = study.chat.tokenizer.convert_tokens_to_ids(["I"])
    return Splicing(study.chat, sample, [STREAM, DECISION, NOTHING], **{**options, **change})


@pytest.fixture(scope="module")
def splicing(study: PlantedStudy, sample: Sample) -> Splicing:
    return _splicing(study, sample)


def test_an_autoencoder_that_changes_nothing_recovers_all(study: PlantedStudy, splicing: Splicing):
    for site in (STREAM, DECISION):
        found = splicing.measure(perfect(study.chat.d_model), site)
        for stratum in (found["all"], found["splits"]["toxic"], found["categories"]["hate"]):
            assert stratum["kl"]["spliced"] == pytest.approx(0, abs=1e-4)
            assert stratum["recovered_ce"] == pytest.approx(1, abs=1e-3)
            assert stratum["recovered_refusal"] == pytest.approx(1, abs=1e-3)
        assert found["splits"]["toxic"]["refusal_rate"] == {"clean": 1.0, "spliced": 1.0, "ablated": 0.0}
        assert found["splits"]["safe"]["refusal_rate"]["spliced"] == 0


def test_an_autoencoder_that_knows_nothing_recovers_nothing(study: PlantedStudy, splicing: Splicing):
    toxic = splicing.measure(useless(study.chat.d_model), STREAM)["splits"]["toxic"]
    assert toxic["refusal_rate"]["spliced"] == 0
    assert toxic["recovered_refusal"] < 0.1  # and under 0, as random rows do worse than the mean row
    assert toxic["kl"]["spliced"] > 1


def test_where_the_site_does_not_matter_nothing_can_be_recovered(study: PlantedStudy, splicing: Splicing):
    toxic = splicing.measure(useless(study.chat.d_model), NOTHING)["splits"]["toxic"]
    assert (toxic["recovered_refusal"], toxic["recovered_ce"]) == (None, None)
    assert abs(toxic["score"]["clean"] - toxic["score"]["ablated"]) < 0.5
    assert toxic["score"]["spliced"] is not None  # what it does is shown all the same


def test_the_clean_model_is_what_the_model_is_without_us(study: PlantedStudy, splicing: Splicing, sample: Sample):
    clean = splicing.clean["splits"]["hard"]
    assert clean["score"]["clean"] == pytest.approx(study.contrast.score[sample.splits == "hard"].mean(), abs=1e-3)
    assert (clean["n_prompts"], clean["n_answered"]) == (16, 16)


@pytest.mark.parametrize("kinds", [("instruction", "template"), ("template",), ()])
def test_the_rows_of_these_kinds_and_of_the_last_token_are_replaced_and_no_other(
    study: PlantedStudy, sample: Sample, kinds: Sequence[str]
):
    onlooker = Onlooker(study.chat.d_model)
    _splicing(study, sample, kinds=kinds).measure(onlooker, STREAM)
    expected = []
    for prompt in sample.encoded:
        with reading(study.chat.model, [STREAM]) as read, torch.no_grad():
            study.chat.model(**study.chat.pad([prompt]).inputs())
        wanted = np.isin(prompt.kinds, [{"instruction": INSTRUCTION, "template": TEMPLATE}[kind] for kind in kinds])
        wanted[-1] = True
        expected.append(read[STREAM][0, torch.from_numpy(wanted)])
    rows, other = torch.cat(onlooker.seen), torch.cat(expected)
    assert rows.shape == other.shape
    torch.testing.assert_close(rows.sum(0), other.sum(0), rtol=1e-3, atol=0.05)


def test_an_ablated_site_says_the_same_of_every_prompt(study: PlantedStudy, sample: Sample):
    after_all = Site("residuals", 3)  # nothing follows but the head
    splicing = Splicing(
        study.chat,
        sample,
        [after_all],
        kinds=("instruction",),
        recipe=RECIPE,
        refusal_tokens=[1],
        token_budget=10_000,
    )
    levels = splicing.measure(perfect(study.chat.d_model), after_all)["splits"]
    scores = [levels[split]["score"]["ablated"] for split in ("safe", "hard", "toxic")]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


def test_batches_change_nothing(study: PlantedStudy, sample: Sample):
    sae = useless(study.chat.d_model)
    one, many = (_splicing(study, sample, token_budget=budget).measure(sae, STREAM) for budget in (10_000, 64))
    assert one["all"]["score"] == pytest.approx(many["all"]["score"], abs=1e-3)
    assert one["all"]["refusal_rate"] == many["all"]["refusal_rate"]


@pytest.mark.parametrize(
    ("phrase", "n_steps", "rate"), [("I cannot", 1, 1.0), ("I cannot help with", 3, 1.0), ("No", 0, 0.0)]
)
def test_responses_go_on_until_it_is_known_whether_they_refuse(
    study: PlantedStudy, sample: Sample, phrase: str, n_steps: int, rate: float
):
    passes: list[object] = []  # the model says "Sure here is how ." or "I cannot help with that ."
    handle = study.chat.model.register_forward_hook(lambda *_: passes.append(None))
    splicing = _splicing(study, sample, recipe=Recipe(sites=(), phrases=(phrase,)), token_budget=10_000)
    handle.remove()
    assert len(passes) == 1 + n_steps
    assert splicing.clean["splits"]["toxic"]["refusal_rate"]["clean"] == rate


def test_without_responses_and_without_labels_what_can_be_said_is_said(study: PlantedStudy, sample: Sample):
    sae = perfect(study.chat.d_model)
    found = _splicing(study, replace(sample, n_answered=0)).measure(sae, STREAM)["splits"]["toxic"]
    assert found["refusal_rate"] == {"clean": None, "spliced": None, "ablated": None}
    assert found["recovered_refusal"] == pytest.approx(1, abs=1e-3)
    found = _splicing(study, sample, refusal_tokens=[]).measure(sae, STREAM)["splits"]["toxic"]
    assert (found["score"]["clean"], found["refusal_rate"]["clean"], found["recovered_refusal"]) == (None,) * 3
    assert found["recovered_ce"] == pytest.approx(1, abs=1e-3)


def test_judged_by_the_score_no_response_is_needed(study: PlantedStudy, sample: Sample):
    by_score = Recipe(sites=(), refused_by="score")
    found = _splicing(study, sample, recipe=by_score).measure(perfect(study.chat.d_model), STREAM)
    assert found["splits"]["toxic"]["refusal_rate"] == {"clean": 1.0, "spliced": 1.0, "ablated": 0.0}


def test_what_is_recovered_is_the_share_of_the_way_back():
    def of(clean: list[float], spliced: list[float], ablated: list[float]) -> float | None:
        return recovered(np.array(clean), np.array(spliced), np.array(ablated), least=0.5)

    assert of([5.0], [2.0], [-1.0]) == 0.5
    assert of([-5.0], [-5.0], [1.0]) == 1.0
    assert of([5.0], [9.0], [4.6]) is None
    assert of([], [], []) is None
    # a toxic prompt of 5 and a safe one of -5 are both 0 in the ablated model: their means would cancel
    assert of([5.0, -5.0], [4.0, -2.0], [0.0, 0.0]) == pytest.approx((4 * 5 + 2 * 5) / 50)


def test_strata_are_all_prompts_each_split_and_each_category(sample: Sample):
    found = by_stratum(lambda rows: int(rows.sum()), sample)
    assert found == {
        "all": 48,
        "splits": {"hard": 16, "safe": 16, "toxic": 16},
        "categories": {"hate": 24, "privacy": 24},
    }
