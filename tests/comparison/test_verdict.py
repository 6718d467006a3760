"""Four words, each with its reason; the same thresholds for every model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.comparison.verdict import RESIDUAL_SD, Verdict, decide

NAN = float("nan")


def verdict(low: float | None, high: float | None, **changes: Any) -> Verdict:
    index = None if low is None or high is None else (low + high) / 2
    facts = {"explained_share": 0.9, "late_share": 0.0, "n_voting": 4, "prompts_per_category": 20}
    return decide(**{"index": index, "low": low, "high": high, **facts, **changes})


@pytest.mark.parametrize(
    ("low", "high", "word", "reason"),
    [
        (0.71, 1.1, "monolithic", "the 95 % interval, 0.71 to 1.10, lies above 0.7"),
        (-0.1, 0.29, "modular", "the 95 % interval, -0.10 to 0.29, lies below 0.3"),
        (0.3, 0.7, "mixed", "the 95 % interval, 0.30 to 0.70, lies between 0.3 and 0.7"),
        (0.7, 1.1, "inconclusive", "the 95 % interval, 0.70 to 1.10, crosses 0.7"),
        (0.1, 0.3, "inconclusive", "the 95 % interval, 0.10 to 0.30, crosses 0.3"),
        (0.6, 0.8, "inconclusive", "the 95 % interval, 0.60 to 0.80, crosses 0.7"),
        (0.2, 0.9, "inconclusive", "the 95 % interval, 0.20 to 0.90, crosses 0.3"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, word: str, reason: str) -> None:
    found = verdict(low, high)
    assert (found.verdict, found.reason) == (word, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_voting": 0}, "no category has enough refused and enough complied prompts; two must have"),
        ({"n_voting": 1}, "only one category has enough refused and enough complied prompts; two must have"),
        ({"explained_share": 0.09}, "the knock-outs explain 9% of the refusal, too little for an index"),
        ({"explained_share": -0.4}, "the knock-outs explain 0% of the refusal, too little for an index"),
        ({"explained_share": NAN}, "the knock-outs explain 0% of the refusal, too little for an index"),
        ({"explained_share": 1.21}, "the knock-outs remove 121% of the refusal: they do damage"),
        ({"late_share": 0.81}, "81% of the effect passes through the last fifth of the blocks"),
        ({"low": None, "high": None}, "the own-category drop may be zero, so the index has no interval"),
    ],
)
def test_each_doubt_makes_it_inconclusive_for_its_own_reason(changes: dict[str, Any], reason: str) -> None:
    assert verdict(**{"low": 0.9, "high": 1.0, "index": 0.95, **changes}) == Verdict("inconclusive", reason)


def test_no_doubt_at_the_thresholds_themselves() -> None:
    for changes in ({"explained_share": 0.1}, {"explained_share": 1.2}, {"late_share": 0.8}, {"n_voting": 2}):
        assert verdict(0.9, 1.0, **changes).verdict == "monolithic"


def test_nothing_measured_at_all() -> None:
    found = verdict(None, None, n_voting=0, explained_share=0.0, prompts_per_category=0)
    assert (found.verdict, found.more_prompts) == ("inconclusive", None)


def test_more_prompts_narrow_the_part_of_the_interval_that_is_sampling() -> None:
    # Index 0.6, half width 0.2, 0.1 to the threshold. Without the fixed part, a quarter of the variance is wanted, so
    # 4 x 20 prompts, 60 more; the fixed part of 1.96 RESIDUAL_SD leaves less room, so a few more than that.
    fixed = 1.96 * RESIDUAL_SD
    exact = 20 * (0.2**2 - fixed**2) / (0.1**2 - fixed**2)
    more = verdict(0.4, 0.8).more_prompts
    assert more is not None
    assert exact - 20 <= more <= exact - 19
    assert more >= 60


def test_no_number_of_prompts_settles_an_index_at_a_threshold() -> None:
    assert verdict(0.5, 0.9).more_prompts is None


@given(st.floats(-0.5, 1.5), st.floats(0.05, 1), st.integers(2, 500))
def test_only_an_interval_that_crosses_asks_for_more(index: float, half: float, n: int) -> None:
    found = verdict(index - half, index + half, prompts_per_category=n)
    if found.verdict != "inconclusive":
        assert found.more_prompts is None
    elif found.more_prompts is not None:
        assert found.more_prompts >= 1
