"""What is used on a prompt comes from prompts of other parts; a centre comes from the prompt's own part."""

from __future__ import annotations

import numpy as np

from refusal.comparison.crossfit import CrossFit, halves, quarters
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast

# Category a: refused 1, 3 (part 0), 8 (part 1), complied 0 (part 0), 2, 4 (part 1); b: refused 5 (part 0), no more.
VALUES = np.array([[1.0], [3], [8], [0], [2], [4], [5]])
BY_HAND = CrossFit(contrast([0] * 6 + [1], [1, 1, 1, 0, 0, 0, 1], [0] * 7), np.array([0, 0, 1, 0, 1, 1, 0]))


def test_differences_for_a_part_come_from_the_others() -> None:
    a, b = BY_HAND.difference(VALUES)[:, :, 0].T
    assert a.tolist() == [8 - 3, 2 - 0]
    assert b.tolist() == [0, 5]  # no prompt of b is in part 1, and none complied: a mean over none is zero


def test_centres_are_of_the_parts_own_complied_prompts() -> None:
    assert BY_HAND.centre(VALUES)[:, 0, 0].tolist() == [0, 3]
    assert BY_HAND.centre(VALUES)[:, 1, 0].tolist() == [0, 0]


def test_pooled_differences_are_the_same_for_all_parts() -> None:
    assert BY_HAND.pooled_difference(VALUES)[:, 0, 0].tolist() == [4 - 2] * 2


def test_a_prompt_does_not_move_what_is_used_on_it() -> None:
    rng = np.random.default_rng(0)
    fit = quarters(contrast(CATEGORY, REFUSED, HALF))
    values = rng.standard_normal((len(CATEGORY), 3))
    before = fit.difference(values)
    for row, part in enumerate(fit.part):
        moved = values.copy()
        moved[row] += 10
        after = fit.difference(moved)
        np.testing.assert_array_equal(after[part], before[part])
        assert not np.allclose(np.delete(after, part, 0), np.delete(before, part, 0))


def test_quarters_are_dealt_within_category_and_kind() -> None:
    fit = quarters(contrast([0] * 9 + [1] * 4, [1] * 6 + [0] * 3 + [0, 1, 0, 1], [0] * 13))
    assert fit.part.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 0, 0, 1, 1]
    assert fit.n_parts == 4


def test_halves_are_the_contrasts_own() -> None:
    fit = halves(contrast(CATEGORY, REFUSED, HALF))
    assert fit.part.tolist() == HALF
    assert fit.n_parts == 2


def test_the_noise_of_a_difference_falls_with_both_numbers_of_prompts() -> None:
    # For part 0 category a has one refused and two complied prompts of others, for part 1 two and one.
    assert BY_HAND.noise_scale().tolist() == [[1.5, 2], [1.5, 2]]
