from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.prompts.prompt import FOLDS, SPLITS, Prompt, make_prompts
from refusal.prompts.select import cap, choose_prompts, equalise, keep_categories, with_folds

seeds = st.integers(0, 1000)


def prompts_of(sizes: Mapping[tuple[str, str], int]) -> list[Prompt]:
    """So many different prompts of each (category, split)."""
    return make_prompts((f"{c} {s} {i}", c, s) for (c, s), n in sizes.items() for i in range(n))


@st.composite
def data(draw: st.DrawFn, min_size: int = 2) -> list[Prompt]:
    """Prompts of one to three categories, in any order."""
    categories = ["a", "b", "c"][: draw(st.integers(1, 3))]
    sizes: dict[tuple[str, str], int] = {
        stratum: draw(st.integers(min_size, 9)) for stratum in itertools.product(categories, SPLITS)
    }
    return draw(st.permutations(prompts_of(sizes)))


def chosen(prompts: list[Prompt], **options: Any) -> list[Prompt]:
    given: dict[str, Any] = {"categories": None, "focus": None, "max_per_category": None, "equal": False, "seed": 0}
    return choose_prompts(prompts, **{**given, **options})


def counts(prompts: list[Prompt]) -> Counter[tuple[str, str]]:
    return Counter((prompt.category, prompt.split) for prompt in prompts)


# --- folds --------------------------------------------------------------------------------------------------


@given(data(), seeds)
def test_each_stratum_is_dealt_evenly_to_the_folds(prompts: list[Prompt], seed: int) -> None:
    divided = with_folds(prompts, seed)
    assert [(p.id, p.text, p.category, p.split) for p in divided] == [
        (p.id, p.text, p.category, p.split) for p in prompts
    ]
    by_fold = Counter((p.category, p.split, p.fold) for p in divided)
    for (category, split), n in counts(prompts).items():
        # n = 3 q + r: the first r folds get one more than the others
        assert [by_fold[category, split, fold] for fold in FOLDS] == [(n + 2 - i) // 3 for i in range(3)]


@given(data(), seeds, st.randoms(use_true_random=False))
def test_a_fold_depends_on_nothing_but_the_prompt_and_its_stratum(
    prompts: list[Prompt], seed: int, order: random.Random
) -> None:
    folds = {p.id: p.fold for p in with_folds(prompts, seed)}
    shuffled = list(prompts)
    order.shuffle(shuffled)
    assert {p.id: p.fold for p in with_folds(shuffled, seed)} == folds
    only = [p for p in prompts if p.category == prompts[0].category]
    assert all(p.fold == folds[p.id] for p in with_folds(only, seed))


def test_another_seed_divides_otherwise() -> None:
    prompts = prompts_of({("a", split): 30 for split in SPLITS})
    assert with_folds(prompts, 0) != with_folds(prompts, 1)
    assert with_folds(prompts, 0) == with_folds(prompts, 0)


def test_the_folds_are_drawn_at_random() -> None:
    # Where prompt 0 of three goes, over 300 seeds: Binomial(300, 1/3), mean 100, sd 8.2; 4 sd either side.
    prompts = prompts_of({("a", split): 3 for split in SPLITS})
    folds = Counter(with_folds(prompts, seed)[0].fold for seed in range(300))
    assert all(67 < folds[fold] < 133 for fold in FOLDS)


def test_copies_of_a_text_never_fall_into_two_folds() -> None:
    rows = [(f"text {i // 2}", category, split) for category in "ab" for split in SPLITS for i in range(20)]
    divided = with_folds(make_prompts(rows), 0)  # each text twice in each of six strata
    assert len({p.id for p in divided}) == 120
    assert all(len({p.fold for p in divided if p.text == f"text {i}"}) == 1 for i in range(10))


def test_a_category_may_have_one_prompt_or_none_in_a_split() -> None:
    sizes: dict[tuple[str, str], int] = dict.fromkeys(itertools.product("ab", SPLITS), 5)
    divided = with_folds(prompts_of({**sizes, ("a", "toxic"): 1, ("b", "toxic"): 1, ("b", "hard"): 0}), 0)
    assert Counter((p.category, p.split) for p in divided) == {
        **{("a", "safe"): 5, ("a", "hard"): 5, ("a", "toxic"): 1},
        **{("b", "safe"): 5, ("b", "toxic"): 1},
    }
    assert {p.fold for p in divided} == set(FOLDS)


def test_the_data_may_lack_splits_altogether() -> None:
    assert Counter(p.fold for p in with_folds(prompts_of({("a", "toxic"): 6}), 0)) == dict.fromkeys(FOLDS, 2)


@pytest.mark.parametrize("n", [0, 2])
def test_fewer_different_prompts_than_folds_are_too_few(n: int) -> None:
    copies = make_prompts([(p.text, p.category, p.split) for p in prompts_of({("a", "safe"): n})] * 2)
    with pytest.raises(InputError) as caught:
        with_folds(copies, 0)
    assert str(caught.value).startswith(f"there are too few prompts: {n} different ones, for the folds calibration, ")
    assert "\n" not in str(caught.value)


# --- cap, equalise, categories ------------------------------------------------------------------------------


@given(data(min_size=0), st.integers(1, 12), seeds)
def test_a_cap_counts_for_each_category_and_split(prompts: list[Prompt], most: int, seed: int) -> None:
    capped = cap(prompts, most, seed)
    assert counts(capped) == Counter({stratum: min(n, most) for stratum, n in counts(prompts).items()})
    assert capped == [p for p in prompts if p in set(capped)]  # the old order
    assert set(cap(prompts, max(most - 1, 1), seed)) <= set(capped)  # a smaller draw is part of a larger one
    assert set(cap(prompts[::-1], most, seed)) == set(capped)


@given(data(), st.integers(1, 12), seeds)
def test_a_category_in_focus_is_kept_whole_and_changes_no_other(prompts: list[Prompt], most: int, seed: int) -> None:
    capped = cap(prompts, most, seed, focus=["a"])
    assert [p for p in capped if p.category == "a"] == [p for p in prompts if p.category == "a"]
    assert [p for p in capped if p.category != "a"] == [p for p in cap(prompts, most, seed) if p.category != "a"]


def test_no_cap_keeps_all_and_none_is_no_cap() -> None:
    prompts = prompts_of({("a", "safe"): 4})
    assert cap(prompts, None, 0) == prompts
    with pytest.raises(InputError, match=r"data\.max_per_category is 0"):
        cap(prompts, 0, 0)


@given(data(), seeds)
def test_equalised_categories_are_as_large_as_the_smallest_in_each_split(prompts: list[Prompt], seed: int) -> None:
    before, equal = counts(prompts), equalise(prompts, seed)
    smallest = {split: min(n for (_, s), n in before.items() if s == split) for split in SPLITS}
    assert counts(equal) == Counter({(category, split): smallest[split] for category, split in before})
    assert equal == [p for p in prompts if p in set(equal)]
    assert equalise(equal, seed) == equal
    assert set(equalise(prompts[::-1], seed)) == set(equal)


def test_a_category_without_a_split_cannot_be_equalised() -> None:
    with pytest.raises(InputError, match=r"data\.equalise: no hard prompts in b; "):
        equalise(prompts_of({("a", "hard"): 1, ("a", "safe"): 2, ("b", "safe"): 2}), 0)


def test_keep_categories() -> None:
    prompts = prompts_of({("a", "safe"): 2, ("b", "safe"): 1, ("c", "toxic"): 1})
    assert {p.category for p in keep_categories(prompts, ["c", "a"])} == {"a", "c"}
    with pytest.raises(
        InputError, match=r"data\.categories: no prompt has the category 'd', 'e'; the data have: a, b, c"
    ):
        keep_categories(prompts, ["a", "d", "e"])
    with pytest.raises(InputError, match="no category is chosen"):
        keep_categories(prompts, [])


@pytest.mark.parametrize("option", ["categories", "focus"])
def test_a_mistyped_category_gets_the_nearest_one(option: str) -> None:
    prompts = prompts_of({("hate", "safe"): 2, ("privacy", "safe"): 2})
    with pytest.raises(InputError) as caught:
        chosen(prompts, **{"max_per_category": 1, option: ["hate", "Privcy"]})
    assert str(caught.value) == (
        f"data.{option}: no prompt has the category 'Privcy' (did you mean 'privacy'?); the data have: hate, privacy"
    )


def test_categories_then_cap_and_focus_then_equal_numbers() -> None:
    prompts = prompts_of({("a", "safe"): 5, ("b", "safe"): 4, ("c", "safe"): 1})
    assert chosen(prompts) == prompts
    assert counts(chosen(prompts, categories=["a", "b"], equal=True)) == {("a", "safe"): 4, ("b", "safe"): 4}
    kept = counts(chosen(prompts, categories=["a", "b"], max_per_category=2, focus=["b"]))
    assert kept == {("a", "safe"): 2, ("b", "safe"): 4}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "without data.max_per_category all are kept"),
        ({"max_per_category": 2, "equal": True}, "data.equalise makes"),
    ],
)
def test_a_focus_that_would_do_nothing_is_a_mistake(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        chosen(prompts_of({("a", "safe"): 3}), focus=["a"], **options)


def test_the_draw_and_the_folds_are_independent() -> None:
    # 30 drawn of 300, then divided: were both made from one ranking, the drawn would be each fold's first ones only.
    prompts = prompts_of({("a", split): 300 for split in SPLITS})
    fold_of = {p.id: p.fold for p in with_folds(prompts, 0)}
    drawn = Counter(fold_of[p.id] for p in cap(prompts, 30, 0))
    assert max(drawn.values()) - min(drawn.values()) > 0  # 30 each would be the sign of one ranking
