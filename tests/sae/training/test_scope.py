"""What is trained on what: the parts of a study's prompts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations.samplers import Sampler, Stratum, category_balanced, toxic_only, uniform, weighted
from refusal.models.sites import Site
from refusal.prompts.prompt import SPLITS
from refusal.sae.training.scope import SAFE, TOXIC, WHOLE, Part, SaeKey, parts

CATEGORIES = ("hate", "privacy", "violence")
STRATA = [Stratum(category, split, 10 + i) for i, category in enumerate(CATEGORIES) for split in SPLITS]
SAMPLERS = [weighted.weights, uniform.weights, category_balanced.weights]


def names(scope: str) -> list[str]:
    return [part.name for part in parts(scope, CATEGORIES)]


def test_each_scope_has_its_parts() -> None:
    assert names("shared") == ["all"]
    assert names("safe_toxic") == ["safe", "toxic"]
    assert names("category") == ["hate", "privacy", "violence"]
    assert names("category") == [part.name for part in parts("category", [*CATEGORIES, *reversed(CATEGORIES)])]


@pytest.mark.parametrize("scope", ["shared", "safe_toxic", "category"])
def test_every_stratum_is_in_one_part(scope: str) -> None:
    for stratum in STRATA:
        assert sum(part.has(stratum) for part in parts(scope, CATEGORIES)) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("part", [WHOLE, SAFE, TOXIC, Part("hate", category="hate")])
def test_a_part_is_sampled_as_if_there_were_nothing_else(sampler: Sampler, part: Part) -> None:
    shares = part.of(sampler)(STRATA)
    inside = [part.has(stratum) for stratum in STRATA]
    alone = [stratum for stratum in STRATA if part.has(stratum)]
    np.testing.assert_allclose(shares[inside], sampler(alone))
    assert shares[np.logical_not(inside)].tolist() == [0] * (len(STRATA) - len(alone))


def test_hard_prompts_are_on_the_safe_side() -> None:
    assert [split for split in SPLITS if SAFE.has(Stratum("hate", split, 1))] == ["safe", "hard"]


@given(st.sampled_from(CATEGORIES), st.floats(0.1, 10))
def test_weights_of_other_categories_are_no_mistake_in_a_part(category: str, weight: float) -> None:
    def sampler(strata: list[Stratum]) -> np.ndarray:
        return weighted.weights(strata, category_weights={category: weight})

    shares = Part("hate", category="hate").of(sampler)(STRATA)  # type: ignore[arg-type]
    np.testing.assert_allclose(shares, Part("hate", category="hate").of(weighted.weights)(STRATA))


def test_a_part_without_rows_is_named() -> None:
    with pytest.raises(InputError, match=r"the autoencoder of safe: the sampler leaves no rows.*splits: hard, safe"):
        SAFE.of(toxic_only.weights)(STRATA)
    with pytest.raises(InputError, match=r"the autoencoder of toxic: .*splits: none"):
        TOXIC.of(uniform.weights)([stratum for stratum in STRATA if stratum.split == "safe"])
    with pytest.raises(InputError, match=r"^the sampler leaves no rows"):
        WHOLE.of(toxic_only.weights)([stratum for stratum in STRATA if stratum.split == "safe"])


def test_a_part_travels_to_another_process() -> None:
    part = Part("hate", category="hate")
    sent = pickle.loads(pickle.dumps(part.of(uniform.weights)))
    assert sent(STRATA).tolist() == part.of(uniform.weights)(STRATA).tolist()


def test_names_say_what_is_not_usual() -> None:
    site = Site("mlp", 2)
    assert SaeKey(site, WHOLE, 3).label(3) == "mlp_2"
    assert SaeKey(site, TOXIC, 3).label(3) == "mlp_2 toxic"
    assert SaeKey(site, WHOLE, 4).label(3) == "mlp_2 seed 4"
    assert SaeKey(site, Part("all", category="all"), 4).label(3) == "mlp_2 all seed 4"
