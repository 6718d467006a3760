"""Overlap of circuits from one sparse matrix of importances, worked by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from refusal.circuits.importances import Importances
from refusal.comparison import overlap
from refusal.models.sites import Site

ATTENTION, MLP = Site("attention", 1), Site("mlp", 1)


def features(values: Any, category: Any, n_categories: int) -> overlap.Features:
    values = np.array(values, dtype=float)
    n_features = values.shape[1]
    site = np.zeros(n_features, dtype=int)
    rows = np.array(category, dtype=int)
    return overlap.Features([MLP], sparse.csr_array(values), site, np.eye(n_features), rows, n_categories)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Categories a, b, c: a and b use feature 0, c uses feature 1, nobody features 2 - 5; 20 prompts each.
SHARED = np.repeat([[1.0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]], 20, axis=0)
CATEGORY = np.repeat([0, 1, 2], 20)


def test_join_puts_sites_side_by_side_for_the_chosen_prompts() -> None:
    of_site = {
        ATTENTION: Importances(str(ATTENTION), sparse.csr_array(np.array([[1.0, 2], [3, 4], [5, 6]])), np.zeros(3)),
        MLP: Importances(str(MLP), sparse.csr_array(np.array([[7.0], [8], [9]])), np.zeros(3)),
    }
    directions = {ATTENTION: np.array([[1.0, 0], [0, 1]]), MLP: np.array([[1.0, 1]])}
    joined = overlap.join(of_site, directions, [ATTENTION, MLP], np.array([2, 0]), np.array([1, 0]), 2)
    assert joined.values.toarray().tolist() == [[5, 6, 9], [1, 2, 7]]
    assert joined.site.tolist() == [0, 0, 1]
    assert joined.directions.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_means_are_by_category_and_zero_without_prompts() -> None:
    found = features([[1, 0], [3, 2], [5, 5]], [0, 0, 2], 3)
    assert found.means().tolist() == [[2, 1], [0, 0], [5, 5]]


def test_every_measure_tells_shared_from_own_features() -> None:
    found = overlap.similarities(features(SHARED, CATEGORY, 3), threshold=0.1, rng=rng())
    assert {"cosine", "node_jaccard", "weighted_jaccard"} <= set(found)
    for name, of_measure in found.items():
        matrix = of_measure["matrix"]
        assert matrix[0][1] == pytest.approx(1), name
        assert matrix[0][2] == pytest.approx(0), name
        assert of_measure["ceiling"] == pytest.approx([1, 1, 1]), name
        assert of_measure["corrected"][0][1] == pytest.approx(1), name


def test_a_category_without_prompts_has_no_similarities() -> None:
    found = overlap.similarities(features(SHARED[:40], CATEGORY[:40], 3), threshold=0.1, rng=rng())
    for of_measure in found.values():
        assert of_measure["matrix"][2] == [None, None, None]
        assert of_measure["ceiling"][2] is None
    json.dumps(found, allow_nan=False)


def test_both_tests_see_what_is_there() -> None:
    one, other = rng().standard_normal((2, 200))  # all features are equally active; a and b weigh them alike
    values = np.stack([one, one, other])[CATEGORY] + 0.1 * rng().standard_normal((60, 200))
    found = overlap.tests(features(values, CATEGORY, 3), n=199, rng=rng())
    assert found["distinguishable"]["p"] == 1 / 200  # c stands apart
    assert found["distinguishable"]["pairs"][0][1] > 0.05
    assert found["distinguishable"]["pairs"][0][2] == 1 / 200
    assert found["above_chance"]["pairs"][0][1] <= 0.02  # one shift in 200 is none, by chance
    assert found["above_chance"]["pairs"][0][2] > 0.05
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("prompts", [[], [0], [0, 1]])
def test_too_few_prompts_have_no_p(prompts: list[int]) -> None:
    few = features(SHARED[prompts], CATEGORY[prompts], 3)
    found = overlap.tests(few, n=19, rng=rng())
    assert found["distinguishable"]["p"] is None
    assert found["above_chance"]["p"] is None
    json.dumps(overlap.similarities(few, threshold=0.1, rng=rng()), allow_nan=False)


def test_safe_hard_and_toxic_circuits() -> None:
    # Safe prompts of every category use feature 5; toxic ones as above, but those of c use feature 5, too. Hard ones of
    # a and b are as the toxic ones; of c there are none.
    toxic = SHARED.copy()
    toxic[40:, 5] = 1
    safe = np.zeros_like(SHARED)
    safe[:, 5] = 1
    sides = {
        "safe": features(safe, CATEGORY, 3),
        "hard": features(SHARED[:40], CATEGORY[:40], 3),
        "toxic": features(toxic, CATEGORY, 3),
    }
    found = overlap.separate(sides, n=99, rng=rng())
    np.testing.assert_allclose(found["within_safe"]["matrix"], np.ones((3, 3)))
    np.testing.assert_allclose(found["within_toxic"]["matrix"][0], [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found["cross"]["matrix"], [[0, 0, 0.5**0.5]] * 3, atol=1e-12)
    np.testing.assert_allclose(found["over_refusal"]["matrix"][:2], [[1, 1, 0]] * 2, atol=1e-12)
    assert found["over_refusal"]["matrix"][2] == [None] * 3
    for picture in ("cross", "over_refusal"):
        assert 0 < found[picture]["p"] <= 1


def test_sides_with_dictionaries_of_their_own_are_matched_by_direction() -> None:
    # Toxic prompts are read in the same directions, in another order; of feature 1, the only one of c, there is none.
    order = [3, 0, 2, 5]
    directions = np.eye(6)[order]
    read = sparse.csr_array(2 * SHARED[:, order])  # a scale of its own
    toxic = overlap.Features([MLP], read, np.zeros(4, dtype=int), directions, CATEGORY, 3)
    hard = features(SHARED, CATEGORY, 3)
    found = overlap.separate({"safe": hard, "hard": hard, "toxic": toxic}, n=19, rng=rng())["over_refusal"]
    assert found["matched"] == {"features": 1, "cosine": 1.0}
    assert found["matrix"] == [[1, 1, None], [1, 1, None], [0, 0, None]]
    alike = overlap.separate({"safe": hard, "hard": hard, "toxic": hard}, n=19, rng=rng())["over_refusal"]
    assert alike["matched"] is None  # the same features need no partner


def test_matched_features_stand_site_by_site_and_alone_ones_after_them() -> None:
    sites = [ATTENTION, MLP]
    one = overlap.Features(
        sites, sparse.csr_array([[1.0, 2, 3, 0]]), np.array([0, 0, 1, 1]), np.eye(4)[[0, 1, 2, 3]], np.array([0]), 1
    )
    other = overlap.Features(
        sites, sparse.csr_array([[4.0, 5, 6, 7]]), np.array([0, 1, 1, 1]), np.eye(4)[[1, 2, 0, 3]], np.array([0]), 1
    )
    first, second, cosines = overlap.matched_features(one, other)
    # Direction 0 is at another site in the second, direction 3 matters in the second alone.
    assert first.values.toarray().tolist() == [[2, 3, 1, 0, 0]]
    assert second.values.toarray().tolist() == [[4, 5, 0, 6, 7]]
    assert first.site.tolist() == second.site.tolist() == [0, 1, 0, 1, 1]
    assert first.directions.tolist() == [*np.eye(4)[[1, 2, 0]].tolist(), [0] * 4, [0] * 4]
    assert cosines.tolist() == [1, 1]


def test_over_refusal_by_the_features_of_refusal_is_above_chance() -> None:
    one, other = rng().standard_normal((2, 200))  # all features are equally active
    toxic = np.stack([one] * 3)[CATEGORY] + 0.1 * rng().standard_normal((60, 200))
    for hard, is_above in ((toxic, True), (np.stack([other] * 3)[CATEGORY], False)):
        sides = {"safe": features(hard, CATEGORY, 3), "hard": features(hard, CATEGORY, 3)}
        found = overlap.separate({**sides, "toxic": features(toxic, CATEGORY, 3)}, n=199, rng=rng())["over_refusal"]
        assert (found["p"] <= 0.02) is is_above
        assert (min(map(min, found["matrix"])) > 0.9) is is_above


def test_a_side_without_any_circuit() -> None:
    nothing = features(np.zeros((0, 6)), [], 3)
    whole = features(SHARED, CATEGORY, 3)
    for empty in (nothing, features(np.zeros_like(SHARED), CATEGORY, 3)):
        found = overlap.separate({"safe": empty, "hard": empty, "toxic": whole}, n=19, rng=rng())
        assert found["within_safe"]["p"] is found["cross"]["p"] is found["over_refusal"]["p"] is None
        assert found["cross"]["matrix"] == found["over_refusal"]["matrix"] == [[None] * 3] * 3
        json.dumps(found, allow_nan=False)
    found = overlap.separate(dict.fromkeys(("safe", "hard", "toxic"), nothing), n=19, rng=rng())
    assert found["cross"]["p"] is None
