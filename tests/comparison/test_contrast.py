"""Refused and complied prompts by category and half."""

from __future__ import annotations

import numpy as np

from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast


def test_a_category_is_measurable_with_two_prompts_of_each_kind_in_each_half() -> None:
    whole = contrast(CATEGORY, REFUSED, HALF)
    assert whole.measurable.tolist() == [True, True]
    assert whole.count(refused=True).tolist() == [4, 4]
    one_less = contrast(CATEGORY[:-1], REFUSED[:-1], HALF[:-1])  # the last: b, complied, half 1
    assert one_less.measurable.tolist() == [True, False]
    assert one_less.count(refused=False).tolist() == [4, 3]


def test_rows_are_those_of_measurable_categories() -> None:
    part = contrast(CATEGORY[:-1], REFUSED[:-1], HALF[:-1])
    assert part.rows(refused=True).tolist() == [0, 1, 4, 5]
    assert part.rows(refused=False).tolist() == [2, 3, 6, 7]


def test_the_effect_is_the_gap_in_refusal_score_and_nan_where_one_side_is_missing() -> None:
    part = contrast([0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1], score=[4, 6, -1, -3])
    np.testing.assert_array_equal(part.effect(), [6, np.nan])  # (4 + 6) / 2 + 1
