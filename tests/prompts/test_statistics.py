from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.prompts.augment import augmented
from refusal.prompts.figure import png, split_figure
from refusal.prompts.prompt import SPLITS, Prompt, make_prompts
from refusal.prompts.statistics import split_statistics


def prompts_of(category: str, safe: int, hard: int, toxic: int) -> list[Prompt]:
    sizes = dict(zip(SPLITS, (safe, hard, toxic), strict=True))
    return make_prompts((f"{i}", category, split) for split, n in sizes.items() for i in range(n))


def test_the_share_is_toxic_over_all_three_splits() -> None:
    statistics = split_statistics([*prompts_of("b", 5, 2, 1), *prompts_of("a", 0, 0, 2)])
    assert list(statistics["categories"]) == ["a", "b"]
    # 1 / (5 + 2 + 1)
    assert statistics["categories"]["b"] == {"safe": 5, "hard": 2, "toxic": 1, "all": 8, "toxic_share": 0.125}
    assert statistics["categories"]["a"]["toxic_share"] == 1.0
    assert statistics["total"] == {"safe": 5, "hard": 2, "toxic": 3, "all": 10, "toxic_share": 0.3}
    assert statistics["warnings"] == []


@pytest.mark.parametrize(("safe", "warned"), [(9, False), (10, True), (125, True)])
def test_a_category_is_warned_about_under_ten_per_cent(safe: int, warned: bool) -> None:
    # 1 of 10 is ten per cent; 1 of 11 is less
    assert bool(split_statistics(prompts_of("a", safe, 0, 1))["warnings"]) == warned


def test_the_warning_says_how_many() -> None:
    warnings = split_statistics([*prompts_of("a\nb", 1250, 0, 10), *prompts_of("c", 1, 1, 1)])["warnings"]
    assert warnings == ["category 'a\\nb': 0.8% of its prompts are toxic (10 of 1,260), under 10%"]


@given(st.lists(st.tuples(st.just("x"), st.sampled_from("abc"), st.sampled_from(SPLITS)), max_size=30))
def test_nothing_is_lost_and_json_can_say_it(rows: list[tuple[str, str, str]]) -> None:
    statistics = split_statistics(make_prompts(rows))
    assert statistics["total"]["all"] == len(rows)
    for split in SPLITS:
        assert {name: row[split] for name, row in statistics["categories"].items() if row[split]} == dict(
            Counter(category for _, category, s in rows if s == split)
        )
    assert json.loads(json.dumps(statistics, allow_nan=False)) == statistics


def test_augmented_prompts_are_not_counted_and_a_split_may_be_absent() -> None:
    prompts = prompts_of("a", 0, 0, 3)
    statistics = split_statistics(augmented(prompts, ["paraphrase"], 0))
    assert statistics == split_statistics(prompts)
    assert statistics["total"] == {"safe": 0, "hard": 0, "toxic": 3, "all": 3, "toxic_share": 1.0}
    assert png(split_figure(statistics)).startswith(b"\x89PNG")
