"""Responses after prompts that were padded on the right are those of each prompt alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusal.models.realign import full_cache, padded_left
from tests.models.tiny import FAMILIES, WINDOW, TinyChat, prompts, tiny

PROMPTS = prompts([3, 19, 1, 12, 7])
N_TOKENS = 2 * WINDOW


def greedy_alone(chat: TinyChat, ids: list[int]) -> Tensor:
    """Run the prompt with all that was said so far anew for every token; logits [n_tokens, vocab]."""
    said, logits = list(ids), []
    for _ in range(N_TOKENS):
        logits.append(chat.model(torch.tensor([said]), use_cache=False).logits[0, -1])
        said.append(int(logits[-1].argmax()))
    return torch.stack(logits)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_of_every_response_token_are_those_of_the_prompt_alone(family: str, side: str) -> None:
    chat, cache = tiny(family), full_cache()
    batch = chat.pad(PROMPTS, side)
    output = chat.model(**batch.inputs(), past_key_values=cache, use_cache=True).logits
    logits = [output[torch.arange(len(PROMPTS)), batch.last]]
    batch = padded_left(batch, cache)
    mask, position = batch.attention_mask, batch.position_ids[:, -1:]
    while len(logits) < N_TOKENS:
        mask, position = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), position + 1
        inputs = {"input_ids": logits[-1].argmax(-1)[:, None], "attention_mask": mask, "position_ids": position}
        logits.append(chat.model(**inputs, past_key_values=cache, use_cache=True).logits[:, -1])
    for row, prompt in enumerate(PROMPTS):
        expected = greedy_alone(chat, prompt.ids)
        actual = torch.stack([step[row] for step in logits])
        assert float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max()) <= 1e-4, row


def test_a_batch_moves_as_if_it_had_been_padded_on_the_left() -> None:
    chat, cache = tiny("llama"), full_cache()
    batch = chat.pad(PROMPTS, "right")
    chat.model(**batch.inputs(), past_key_values=cache)
    moved, expected = padded_left(batch, cache), chat.pad(PROMPTS, "left")
    assert torch.equal(moved.attention_mask, expected.attention_mask)
    tokens = expected.attention_mask.bool()
    for mine, right in zip(moved[:3], expected[:3], strict=True):
        assert torch.equal(mine[tokens], right[tokens])
    assert torch.equal(moved.last, expected.last)
