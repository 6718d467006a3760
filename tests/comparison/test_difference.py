"""Two studies of the same prompts: the indices differ where the models do, and what they share cancels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from refusal import InputError
from refusal.circuits.importances import Attribution, Importances
from refusal.comparison.difference import difference
from refusal.comparison.measured import Comparing, Measured, Transfer
from refusal.comparison.transfer import Direct, Drops
from refusal.models.sites import Site

SITE = Site("mlp", 2)
NAMES = ["a", "b", "c"]
N_EACH = 40


def study(transfer: float, *, seed: int = 0, noise: float = 0.0, order: Any = None) -> Measured:
    """Every prompt falls by 4 under its own category's knock-out, by ``transfer`` of that under the others'.

    What the seed draws (a factor for each prompt) is the same in all studies of a seed; ``noise`` is the study's own.
    """
    category = np.repeat(np.arange(3), N_EACH)
    n = len(category)
    factor = 1 + 0.5 * np.random.default_rng(seed).normal(size=n)
    shares = np.where(category == np.arange(3)[:, None], 1.0, transfer + factor - 1)
    values = 4 * (shares + noise * np.random.default_rng(seed + 1).normal(size=(3, n)))
    drops = Drops(2, values, category, np.arange(n) % 2)
    direct = Direct([drops], drops, np.full((5, 3), 4.0), 2, 0.0, 0.0, 0.0)
    order = np.arange(n) if order is None else np.asarray(order)
    values = np.eye(3)[category[order]]
    importances = {SITE: Importances(str(SITE), sparse.csr_array(values), np.zeros(len(order)))}
    place = np.argsort(order)
    return Measured(
        categories=NAMES,
        category=category[order],
        refused=np.ones(n, dtype=bool),
        effect=np.full(3, 4.0),
        voting=[0, 1, 2],
        n_layers=6,
        how=Comparing(0.1, 99, 200, 0),
        attribution=Attribution(importances, [f"p{i}" for i in order.tolist()], "atp", "mean", "last"),
        directions={SITE: np.eye(3)},
        transfer=Transfer(direct, place, None, None),
        sides={},
    )


@cache
def found(first: float, second: float, noise: float = 0.0) -> dict[str, Any]:
    return difference(study(first), study(second, noise=noise), bootstrap=400, seed=0)


def test_a_study_does_not_differ_from_itself() -> None:
    same = found(0.5, 0.5)
    assert same["difference"] == pytest.approx(0)
    assert same["low"] < 0 < same["high"]
    assert same["differs"] is False


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.8), (0.8, 0.2), (0.4, 0.6)])
def test_the_difference_is_the_second_index_above_the_first(first: float, second: float) -> None:
    apart = found(first, second)
    assert apart["difference"] == pytest.approx(second - first)
    assert apart["difference"] == pytest.approx(apart["indices"][1] - apart["indices"][0])
    assert apart["low"] < second - first < apart["high"]
    assert apart["differs"] is True


def width(of: dict[str, Any]) -> float:
    return of["high"] - of["low"]


def test_what_the_prompts_have_in_common_cancels() -> None:
    # Each index varies with its prompts by 0.5 / sqrt(120) = 0.05. What both studies drew alike is no difference.
    apart = difference(study(0.4), study(0.6, seed=5), bootstrap=400, seed=0)
    assert width(found(0.4, 0.6)) < 0.75 * width(apart)
    assert width(found(0.4, 0.6)) < 0.75 * width(found(0.4, 0.6, 0.5))


def test_prompts_are_matched_by_id_and_not_by_place() -> None:
    shuffled = study(0.6, order=np.random.default_rng(1).permutation(3 * N_EACH))
    turned = difference(study(0.4), shuffled, bootstrap=400, seed=0)
    for name in ("difference", "low", "high"):
        assert turned[name] == pytest.approx(found(0.4, 0.6)[name])


def test_prompts_that_one_model_complies_with_count_in_the_other_alone() -> None:
    one, other = study(0.4), study(0.6)
    assert other.transfer is not None
    drops = other.transfer.direct.index_drops
    few = np.flatnonzero(np.arange(3 * N_EACH) % 4)
    fewer = replace(drops, values=drops.values[:, few], category=drops.category[few], part=drops.part[few])
    direct = replace(other.transfer.direct, drops=[fewer], halved=fewer)
    other = replace(other, transfer=replace(other.transfer, direct=direct, tested=few))
    apart = difference(one, other, bootstrap=400, seed=0)
    assert apart["prompts"] == {"common": 120, "refused": [120, 90], "drawn": 120}
    assert apart["low"] < 0.2 < apart["high"]


def test_circuits_recur_in_features_that_are_only_numbered_otherwise() -> None:
    one, other = study(0.5), study(0.5)
    order = [2, 0, 1]
    of_site = other.attribution.importances[SITE]
    moved = replace(of_site, values=sparse.csr_array(of_site.values.toarray()[:, order]))
    permuted = replace(
        other, attribution=replace(other.attribution, importances={SITE: moved}), directions={SITE: np.eye(3)[order]}
    )
    at = difference(one, permuted, bootstrap=20, seed=0)["circuits"]["mlp_2"]
    alike = dict.fromkeys(NAMES, 1.0)
    assert at == {
        **{"features": [3, 3], "matched": 3, "matched_cosine": 1.0},
        **{"cosine": alike, "net_direction": alike},
    }


def test_a_feature_that_is_split_recurs_in_its_net_direction_alone() -> None:
    # Of each axis the other study has two features, which lean away from it by 50 degrees to either side.
    one, other = study(0.5), study(0.5)
    axes = np.eye(6)
    along, away = np.cos(np.radians(50)), np.sin(np.radians(50))
    split = np.concatenate([along * axes[:3] + away * axes[3:], along * axes[:3] - away * axes[3:]])
    of_site = other.attribution.importances[SITE]
    halves = sparse.csr_array(np.tile(of_site.values.toarray() / 2, (1, 2)))
    attribution = replace(other.attribution, importances={SITE: replace(of_site, values=halves)})
    other = replace(other, attribution=attribution, directions={SITE: split})
    at = difference(replace(one, directions={SITE: axes[:3]}), other, bootstrap=20, seed=0)["circuits"]["mlp_2"]
    assert (at["features"], at["matched"], at["matched_cosine"]) == ([3, 6], 0, None)
    assert at["cosine"] == dict.fromkeys(NAMES, 0.0)
    assert list(at["net_direction"].values()) == pytest.approx([1.0] * 3)


def test_models_of_other_widths_have_no_features_in_common() -> None:
    wide = replace(study(0.5), directions={SITE: np.eye(3, 7)})
    assert difference(study(0.5), wide, bootstrap=20, seed=0)["circuits"] == {}


def test_other_prompts_are_one_line() -> None:
    other = study(0.5)
    ids = [f"q{i}" if i % 3 else name for i, name in enumerate(other.attribution.prompt_ids)]
    other = replace(other, attribution=replace(other.attribution, prompt_ids=ids))
    with pytest.raises(InputError, match="different prompts: 40 of 120 and 120 are in both"):
        difference(study(0.5), other, bootstrap=20, seed=0)


def test_without_votes_or_an_index_it_is_one_line() -> None:
    with pytest.raises(InputError, match="only 1 categories have a vote in both"):
        difference(replace(study(0.5), voting=[0, 1]), replace(study(0.5), voting=[1, 2]), bootstrap=20, seed=0)
    with pytest.raises(InputError, match="has no index"):
        difference(study(0.5), replace(study(0.5), transfer=None), bootstrap=20, seed=0)
