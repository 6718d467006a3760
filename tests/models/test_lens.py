"""The logit lens: a direction's own effect on the logits, through the model's last norm and unembedding."""

from __future__ import annotations

import pytest
import torch

from refusal.models.chat import ChatModel
from refusal.models.hooks import editing
from refusal.models.lens import logit_lens
from refusal.models.sites import Site
from tests.models.tiny import D_MODEL, FAMILIES, N_LAYERS, VOCABULARY, prompts, tiny

CAPPED = "gemma2"  # squashes its logits: order is kept, sizes are not


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_that_is_one_direction_has_the_logits_of_the_lens(family: str) -> None:
    chat = tiny(family)
    direction = torch.randn(1, D_MODEL, generator=torch.Generator().manual_seed(2))
    length = D_MODEL**0.5 / direction.norm()
    ids = torch.tensor(prompts([4])[0].ids)[None]

    def logits_of(stream: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), editing(chat.model, {Site("residuals", N_LAYERS - 1): lambda x: stream.expand_as(x)}):
            return chat.model(ids).logits[0, -1]

    (lens,) = logit_lens(chat.model, direction)
    assert lens.shape == (VOCABULARY,)
    difference = logits_of(length * direction) - logits_of(torch.zeros(D_MODEL))
    if family == CAPPED:
        assert torch.equal(lens.argsort()[-5:], difference.argsort()[-5:])
    else:
        torch.testing.assert_close(lens, difference, rtol=1e-3, atol=1e-3)


def test_the_length_of_a_direction_does_not_count() -> None:
    chat, directions = tiny("llama"), torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(logit_lens(chat.model, 1e-3 * directions), logit_lens(chat.model, directions))


def test_in_a_planted_model_the_direction_of_refusal_raises_its_first_word(planted: ChatModel) -> None:
    token = planted.tokenizer.convert_tokens_to_ids("I")
    row = planted.model.get_output_embeddings().weight[token]
    assert int(logit_lens(planted.model, row[None])[0].argmax()) == token
