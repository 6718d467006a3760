"""Re-running the ends of prompts equals running the prompts."""

import pytest
import torch

from refusal.models.chat import ChatModel
from refusal.models.hooks import editing, reading
from refusal.models.sites import parse_site
from refusal.models.suffix import suffix_batches
from refusal.prompts.prompt import Prompt

SITES = [parse_site(name) for name in ("attention_0", "mlp_2", "residuals_5")]


@pytest.mark.parametrize("n_suffix", [1, 2])
def test_a_suffix_gives_the_logits_and_sites_of_the_whole_prompt(
    planted: ChatModel, prompts: list[Prompt], n_suffix: int
):
    encoded = [planted.encode(prompt.text) for prompt in prompts]
    seen = 0
    for batch in suffix_batches(planted, encoded, n_suffix=n_suffix, batch_size=16):
        with reading(planted.model, SITES) as read:
            logits = batch.logits()
        for row, i in enumerate(batch.index):
            with reading(planted.model, SITES) as whole:
                alone = planted.model(input_ids=torch.tensor([encoded[i].ids])).logits[0, -1]
            torch.testing.assert_close(logits[row], alone, rtol=1e-4, atol=1e-4)
            for site in SITES:
                torch.testing.assert_close(read[site][row], whole[site][0, -n_suffix:], rtol=1e-4, atol=1e-4)
            seen += 1
    assert seen == len(prompts)


def test_a_pass_leaves_the_cache_as_it_was(planted: ChatModel, prompts: list[Prompt]):
    batch = next(iter(suffix_batches(planted, [planted.encode(p.text) for p in prompts[:8]])))
    first = batch.logits()
    with editing(planted.model, {SITES[1]: torch.zeros_like}):
        changed = batch.logits()
    assert torch.equal(first, batch.logits())
    assert not torch.equal(first, changed)


def test_responses_go_on_from_the_changed_pass(planted: ChatModel, prompts: list[Prompt]):
    encoded = [planted.encode(prompt.text) for prompt in prompts]
    decision, openings = parse_site("mlp_2"), set()
    for batch in suffix_batches(planted, encoded, batch_size=16):
        usual, first = batch.answer(6)
        with editing(planted.model, {decision: torch.zeros_like}):
            _, changed = batch.answer(6)
        assert torch.equal(usual, batch.logits())
        first.run(6)
        changed.run(6)
        for row, i in enumerate(batch.index):
            whole = torch.tensor([encoded[i].ids])
            alone = planted.model.generate(whole, attention_mask=torch.ones_like(whole), max_new_tokens=6)
            assert first.texts(6)[row] == planted.tokenizer.decode(alone[0, whole.shape[1] :], skip_special_tokens=True)
        assert {text.split()[0] for text in changed.texts(6)} == {"Sure"}  # nothing was decided
        openings |= {text.split()[0] for text in first.texts(6)}
    assert openings == {"I", "Sure"}


def test_gradients_flow_through_the_suffix(planted: ChatModel, prompts: list[Prompt]):
    batch = next(iter(suffix_batches(planted, [planted.encode(p.text) for p in prompts[:4]])))
    seen: list[torch.Tensor] = []

    def leaf(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach().requires_grad_())
        return seen[-1]

    with editing(planted.model, {SITES[1]: leaf}):
        batch.logits().sum().backward()
    assert seen[0].grad is not None
    assert seen[0].grad.abs().sum() > 0
