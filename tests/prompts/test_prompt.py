from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from refusal.prompts.prompt import CATEGORIES, FOLDS, SPLITS, make_prompts

rows = st.tuples(st.sampled_from("ab"), st.sampled_from(CATEGORIES), st.sampled_from(SPLITS))


def test_the_names_that_others_rely_on() -> None:
    assert SPLITS == ("safe", "hard", "toxic")
    assert FOLDS == ("calibration", "train", "heldout")
    assert len(CATEGORIES) == 10
    assert list(CATEGORIES) == sorted(CATEGORIES)


def test_an_id_is_the_hash_of_what_the_prompt_is() -> None:
    prompt = make_prompts([("How?", "hate", "toxic")])[0]
    assert prompt.id == hashlib.sha256(b"toxic\0hate\0How?\x000").hexdigest()[:16]
    assert (prompt.text, prompt.category, prompt.split, prompt.fold) == ("How?", "hate", "toxic", "")


@given(st.lists(rows, max_size=12), st.randoms())
def test_ids_are_distinct_and_do_not_depend_on_the_order(
    given_rows: list[tuple[str, str, str]], random: object
) -> None:
    prompts = make_prompts(given_rows)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    shuffled = list(given_rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(make_prompts(shuffled)) == set(prompts)
