from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.prompts.augment import augmented, kinds
from refusal.prompts.prompt import FOLDS, SPLITS, Prompt, make_prompts
from refusal.prompts.select import with_folds

seeds = st.integers(0, 1000)
chosen = st.lists(st.sampled_from(kinds()), unique=True)


@st.composite
def divided(draw: st.DrawFn) -> list[Prompt]:
    """Prompts in folds, many of which are alike but for case and punctuation: their rewordings coincide."""
    texts = st.builds(
        "{}{}{}".format,
        st.sampled_from(["why", "Why", "WHY"]),
        st.sampled_from("0123"),
        st.sampled_from(["", ".", "?"]),
    )
    rows = draw(st.lists(st.tuples(texts, st.sampled_from("ab"), st.sampled_from(SPLITS)), max_size=30))
    base = [(f"text {i}", "a", "safe") for i in range(3)]  # so that no fold is empty
    return with_folds(make_prompts([*base, *rows]), draw(seeds))


@given(divided(), chosen, seeds)
def test_what_is_made_never_leaves_the_fold_category_and_split_of_its_source(
    prompts: list[Prompt], names: list[str], seed: int
) -> None:
    originals = {prompt.id: prompt for prompt in prompts}
    made = augmented(prompts, names, seed)[len(prompts) :]
    for prompt in made:
        source = originals[prompt.source]
        assert (prompt.fold, prompt.category, prompt.split) == (source.fold, source.category, source.split)
        assert prompt.variant.partition("_")[0] in names


@given(divided(), chosen, seeds)
def test_no_text_stands_in_two_folds_and_no_id_comes_twice(prompts: list[Prompt], names: list[str], seed: int) -> None:
    everything = augmented(prompts, names, seed)
    for fold in FOLDS:
        inside = {p.text for p in everything if p.fold == fold}
        assert not inside & {p.text for p in everything if p.fold != fold}
    assert len({p.id for p in everything}) == len(everything)
    made = [p.text for p in everything if p.variant]
    assert len(set(made)) == len(made)
    assert not set(made) & {p.text for p in prompts}  # nothing that is there already


@given(divided(), chosen, seeds, st.randoms(use_true_random=False))
def test_the_originals_stay_as_they_are_and_their_order_changes_nothing(
    prompts: list[Prompt], names: list[str], seed: int, order: random.Random
) -> None:
    everything = augmented(prompts, names, seed)
    assert everything[: len(prompts)] == prompts
    shuffled = list(prompts)
    order.shuffle(shuffled)
    assert augmented(shuffled, names, seed)[len(prompts) :] == everything[len(prompts) :]


def test_every_prompt_gets_one_of_each_kind_drawn_by_the_seed() -> None:
    prompts = with_folds(make_prompts([(f"How about {i}?", "a", "safe") for i in range(60)]), 0)
    made = augmented(prompts, kinds(), 0)[60:]
    assert len(made) == 60 * len(kinds())
    assert len({prompt.variant for prompt in made if prompt.variant.startswith("case_")}) == 3  # lower, upper, title
    assert augmented(prompts, kinds(), 0) == augmented(prompts, kinds(), 0) != augmented(prompts, kinds(), 1)


def test_without_kinds_there_are_the_originals_alone() -> None:
    prompts = make_prompts([("How?", "a", "safe")])
    assert augmented(prompts, [], 0) == prompts


def test_a_mistyped_kind_gets_the_nearest_one() -> None:
    with pytest.raises(InputError) as caught:
        augmented([], ["case", "paraphrases"], 0)
    assert str(caught.value) == (
        "data.augment: there is no 'paraphrases' (did you mean 'paraphrase'?); "
        "it can be: case, paraphrase, politeness, punctuation"
    )
