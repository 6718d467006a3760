"""Phrases that refuse, tokens that open refusals, and the refusal score."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.models.refusal_score import REFUSAL_PHRASES, choose_refusal_tokens, is_decided, refusal_score, refused


@pytest.mark.parametrize(
    "response", ["I'm sorry, but", "I\u2019m sorry", " i cannot do that", "I can't", '"I cannot', "As an AI model"]
)
def test_phrases_at_the_start_refuse(response: str):
    assert refused(response)


@pytest.mark.parametrize("response", ["Sure, here", "", "You said I cannot", "Against policy, in history,"])
def test_other_responses_do_not(response: str):
    assert not refused(response)


@pytest.mark.parametrize("response", ["", "I", "\n*I\u2019m", "I can", "Unfortunately,", "\ufffd", "I\ufffd"])
def test_a_response_that_may_become_a_refusal_is_not_decided(response: str):
    assert not is_decided(response)


@pytest.mark.parametrize("response", ["I cannot", "Sure", "I can help", "Unfortunately, you", "I\ufffd can"])
def test_one_that_is_a_refusal_or_cannot_be_one_any_more_is_decided(response: str):
    assert is_decided(response)


@given(st.lists(st.sampled_from([*REFUSAL_PHRASES, *"I'\u2019 aAmsnotc*#", "\n", "\ufffd"])), st.integers(0, 30))
def test_what_is_decided_stays_so_however_the_response_goes_on(pieces: list[str], n: int):
    response = "".join(pieces)
    if is_decided(response[:n]):
        assert refused(response[:n]) == refused(response)


def test_refusal_tokens_open_refusals_and_seldom_others():
    # 100 refusals: 90 open with 7, 9 with 8, 1 with 5 (1 % < 2 %). 100 others: 3 with 8: 9 % is under 5 x 3 %.
    first = [7] * 90 + [8] * 9 + [5] + [3] * 97 + [8] * 3
    assert choose_refusal_tokens(first, [True] * 100 + [False] * 100) == [7]


@pytest.mark.parametrize(("refusals", "word"), [([True] * 4, "always"), ([False] * 4, "never")])
def test_a_model_that_always_or_never_refuses_is_one_line(refusals: list[bool], word: str):
    with pytest.raises(InputError, match=f"the model {word} refuses"):
        choose_refusal_tokens([1, 2, 3, 4], refusals)


def test_no_token_of_refusals_alone_is_one_line():
    with pytest.raises(InputError, match="no token opens refusals"):
        choose_refusal_tokens([1, 1, 1, 1], [True, True, False, False])


def test_the_score_is_the_log_odds_of_the_refusal_tokens():
    # probabilities 0.5, 0.25, 0.25: the odds of the first two are 3 to 1
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert refusal_score(logits, [0, 1]).item() == pytest.approx(math.log(3))
