"""The whole measurement of a store's autoencoders: on a planted model, with a good one and a useless one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site
from refusal.sae.base import SparseAutoencoder
from refusal.sae.quality.measure import by_turns, measure_quality
from tests.activations.conftest import planted_study
from tests.sae.in_place import perfect, useless

SITE = Site("residuals", 2)
SAES = {"good": SITE, "useless": SITE}
HELDOUT = {"good": {"all": {"fvu": 0.0}}, "useless": {"all": {"fvu": 1.0}}}
RECIPE = Recipe(sites=(SITE,), response_tokens=6)


def _load(name: str) -> SparseAutoencoder:
    return {"good": perfect, "useless": useless}[name](128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Any]:
    return _measure(folder, RECIPE, "store")


def _measure(folder: Path, recipe: Recipe, name: str) -> dict[str, Any]:
    chat, prompts = planted_study(folder / "model", n_each=36)
    collect(chat, prompts, recipe, folder / name, card={})
    options: dict[str, Any] = {"max_prompts": 36, "responses": 12, "token_budget": 1024, "seed": 0}
    kinds = ("instruction", "template")
    store = ActivationStore(folder / name)
    return measure_quality(chat, store, SAES, _load, HELDOUT, recipe=recipe, kinds=kinds, **options)


def test_a_good_autoencoder_keeps_the_refusals_and_a_useless_one_shows(measured: dict[str, Any]):
    good, bad = (measured["saes"][name]["splice"]["splits"]["toxic"] for name in ("good", "useless"))
    assert good["recovered_refusal"] == pytest.approx(1, abs=1e-3)
    assert good["refusal_rate"]["spliced"] == good["refusal_rate"]["clean"] == 1
    assert bad["recovered_refusal"] is None or bad["recovered_refusal"] < 0.1
    assert bad["refusal_rate"]["spliced"] == 0
    assert measured["clean"]["splits"]["toxic"]["refusal_rate"]["clean"] == 1


def test_each_autoencoder_has_its_rows_its_place_in_the_model_and_its_probes(measured: dict[str, Any]):
    good, bad = (measured["saes"][name] for name in ("good", "useless"))
    assert good["site"] == str(SITE)
    assert [good["heldout"], bad["heldout"]] == [HELDOUT["good"], HELDOUT["useless"]]
    assert set(good["splice"]["splits"]) == {"safe", "hard", "toxic"}
    assert set(good["splice"]["categories"]) == {"hate", "privacy"}
    assert set(good["probing"]) == {"toxic", "refused", "category"}
    assert good["probing"]["toxic"]["features"]["20"]["auc"] > 0.9


def test_strata_count_alike_in_what_is_run(measured: dict[str, Any]):
    found = measured["saes"]["good"]["splice"]
    assert {split: one["n_prompts"] for split, one in found["splits"].items()} == {"safe": 12, "hard": 12, "toxic": 12}
    assert {split: one["n_answered"] for split, one in found["splits"].items()} == {"safe": 4, "hard": 4, "toxic": 4}


def test_it_is_json_without_nan_and_the_same_every_time(measured: dict[str, Any], folder: Path):
    text = json.dumps(measured, allow_nan=False)
    assert json.dumps(_measure(folder, RECIPE, "store"), allow_nan=False) == text


def test_without_labels_the_refusals_are_left_out(folder: Path):
    found = _measure(folder, Recipe(sites=(SITE,), response_tokens=0, refused_by="score"), "unlabelled")
    good = found["saes"]["good"]
    assert good["splice"]["all"]["recovered_refusal"] is None
    assert good["splice"]["all"]["kl"]["spliced"] == pytest.approx(0, abs=1e-4)
    assert set(good["probing"]) == {"toxic", "category"}


def test_groups_take_turns():
    groups = ["a"] * 6 + ["b"] * 2 + ["c"]
    order = [groups[place] for place in by_turns(groups, np.random.default_rng(0))]
    assert sorted(order[:3]) == ["a", "b", "c"]
    assert sorted(order[3:5]) == ["a", "b"]
    assert order[5:] == ["a"] * 4
