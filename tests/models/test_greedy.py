"""Greedy responses against transformers' own ``generate``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from refusal.models.greedy import Greedy
from tests.models.tiny import TinyChat, prompts, tiny

N_TOKENS = 6


class Endable(TinyChat):
    """A tiny model some of whose tokens end a response."""

    ends: frozenset[int] = frozenset()

    @property
    def end_ids(self) -> set[int]:
        return set(self.ends)


def _greedy(chat: TinyChat, ends: set[int], n_tokens: int) -> Greedy:
    chat = Endable(chat.model, None, "tiny")
    chat.ends = frozenset(ends)
    batch = chat.pad(prompts([7, 4, 9]), "left")
    with torch.no_grad():
        output = chat.model(**batch.inputs(), use_cache=True)
        greedy = Greedy(chat, batch, output.logits[:, -1], output.past_key_values, n_tokens)
        greedy.run(n_tokens)
    return greedy


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_tokens_are_those_that_generate_gives(family: str):
    chat = tiny(family)
    inputs = chat.pad(prompts([7, 4, 9]), "left").inputs()
    ids = inputs.pop("input_ids")
    inputs.pop("position_ids")
    expected = chat.model.generate(ids, **inputs, max_new_tokens=N_TOKENS, do_sample=False, pad_token_id=0)
    greedy = _greedy(chat, set(), N_TOKENS)
    assert greedy.ids.tolist() == expected[:, ids.shape[1] :].tolist()


class Spelled:
    """Each token is a letter."""

    def batch_decode(self, responses: list[list[int]], **_: Any) -> list[str]:
        return ["".join(chr(ord("a") + token) for token in ids) for ids in responses]


def test_it_stops_where_it_is_known_which_responses_refuse():
    greedy = _greedy(tiny("llama"), set(), 1)
    greedy._chat.tokenizer = Spelled()
    (first, *_) = (text[0] for text in greedy.texts(1))
    others = {text[0] for text in greedy.texts(1)} - {first}
    assert others
    with torch.no_grad():
        assert greedy.refusals(N_TOKENS, [first]) == [text[0] == first for text in greedy.texts(1)]
    assert greedy.ids.shape == (3, 1)
    with torch.no_grad():
        assert greedy.refusals(N_TOKENS, [f"{first}?"]) == [False] * 3  # decided by the second letter
    assert greedy.ids.shape == (3, 2)


def test_it_stops_where_every_every_response_has_ended():
    first = _greedy(tiny("llama"), set(), 1).ids[:, 0]
    greedy = _greedy(tiny("llama"), set(first.tolist()), N_TOKENS)
    assert greedy.ids.shape == (3, 1)
    assert greedy.ended.tolist() == [True] * 3
