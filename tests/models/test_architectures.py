"""Every site of every family is what it claims to be, and can be changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from refusal import InputError
from refusal.models.architectures import find
from refusal.models.chat import ChatModel
from refusal.models.hooks import editing, editing_neurons, has_neurons, reading
from refusal.models.sites import Site, choose
from tests.models.by_hand import families as by_hand
from tests.models.by_hand.parts import Weights
from tests.models.tiny import D_MODEL, FAMILIES, N_LAYERS, VOCABULARY, WINDOW, chat_of, prompts, tiny

SITES = choose([], N_LAYERS, preset="every")
IDS = torch.tensor(prompts([3 * WINDOW])[0].ids)


def run(chat: ChatModel) -> tuple[dict[Site, Tensor], Tensor]:
    with torch.no_grad(), reading(chat.model, SITES) as read:
        logits = chat.model(IDS[None]).logits[0]
    return {site: value[0] for site, value in read.items()}, logits


def assert_rows_close(actual: Tensor, expected: Tensor, tolerance: float, what: object) -> None:
    error = (actual - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) <= tolerance, (str(what), error)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_equals_a_pass_written_by_hand(family: str) -> None:
    chat = tiny(family)
    read, logits = run(chat)
    write = getattr(by_hand, family.removesuffix("_sequential"))
    sites, expected = write(Weights(dict(chat.model.state_dict())), chat.model.config, IDS)
    assert set(sites) == {str(site) for site in read}
    for site in SITES:
        assert_rows_close(read[site], sites[str(site)], 1e-4, site)
    assert_rows_close(logits, expected, 1e-4, "logits")
    assert (chat.n_layers, chat.d_model, chat.context) == (N_LAYERS, D_MODEL, 128)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_neurons_an_mlp_writes_the_same_whatever_it_reads(family: str) -> None:
    chat = tiny(family)
    assert has_neurons(chat.model)
    before, _ = run(chat)
    with editing_neurons(chat.model, {1: torch.zeros_like}):
        after, _ = run(chat)
    write = after[Site("mlp", 1)]
    torch.testing.assert_close(write, write[:1].expand_as(write))  # its last map's bias
    assert torch.equal(after[Site("attention", 1)], before[Site("attention", 1)])
    assert not torch.allclose(before[Site("mlp", 1)], write)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_write_moves_the_stream_by_as_much(family: str) -> None:
    chat = tiny(family)
    change = torch.linspace(-1, 1, D_MODEL)
    before, _ = run(chat)
    for kind, other in (("attention", "mlp"), ("mlp", "attention")):
        with editing(chat.model, {Site(kind, 1): lambda x: x + change}):
            after, _ = run(chat)
        moved = {site: after[site] - before[site] for site in SITES}
        assert_rows_close(
            moved[Site("residuals", 1)] - moved[Site(other, 1)], change.expand(len(IDS), -1), 1e-4, f"{kind}_1"
        )
        assert moved[Site("residuals", 2)].norm() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_at_a_site_are_those_of_small_changes(family: str) -> None:
    chat = tiny(family)
    at = torch.randn(len(IDS), D_MODEL, generator=torch.Generator().manual_seed(1))

    def logit(site: Site, change: Tensor) -> Tensor:
        with editing(chat.model, {site: lambda x: x + change}):
            return chat.model(IDS[None]).logits[0, -1, 7]

    for site in SITES:
        change = torch.zeros(len(IDS), D_MODEL, requires_grad=True)
        (gradient,) = torch.autograd.grad(logit(site, change), change)
        with torch.no_grad():
            slope = (logit(site, 0.01 * at) - logit(site, -0.01 * at)) / 0.02
        assert float((gradient * at).sum()) == pytest.approx(float(slope), rel=0.02, abs=2e-3), site


@pytest.mark.parametrize(("family", "sees"), [("gpt_neox", False), ("gpt_neox_sequential", True), ("llama", True)])
def test_only_in_parallel_blocks_the_mlp_does_not_see_its_own_blocks_attention(family: str, sees: bool) -> None:
    chat = tiny(family)
    before, _ = run(chat)
    with editing(chat.model, {Site("attention", 1): lambda x: 2 * x}):
        after, _ = run(chat)
    assert torch.equal(after[Site("mlp", 1)], before[Site("mlp", 1)]) != sees


def test_the_text_part_of_a_model_that_sees_has_the_sites_of_the_text_model() -> None:
    text = tiny("gemma3")
    vision: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.Gemma3Config(
        text_config=text.model.config.to_dict(),
        vision_config={
            **vision,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "model_type": "siglip_vision_model",
        },
        mm_tokens_per_image=4,
        image_token_index=VOCABULARY - 1,
    )
    seeing = chat_of(config)
    assert type(seeing.model).__name__ == "Gemma3ForConditionalGeneration"
    seeing.model.model.language_model.load_state_dict(text.model.model.state_dict())
    seeing.model.tie_weights()
    assert (seeing.n_layers, seeing.d_model, seeing.context) == (N_LAYERS, D_MODEL, 128)
    (read, logits), (expected, expected_logits) = run(seeing), run(text)
    for site in SITES:
        assert torch.equal(read[site], expected[site]), site
    assert torch.equal(logits, expected_logits)


def test_a_type_that_no_file_names_is_taken_for_the_family_that_it_is_built_like() -> None:
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": D_MODEL, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": N_LAYERS, "num_attention_heads": 4}
    for config, like in ((transformers.Olmo2Config(**sizes), "gemma2"), (transformers.PhiConfig(**sizes), "llama")):
        chat = chat_of(config)
        assert find(chat.model)[0] is find(tiny(like).model)[0]
        read, _ = run(chat)
        added = read[Site("attention", 1)] + read[Site("mlp", 1)]
        assert_rows_close(read[Site("residuals", 0)] + added, read[Site("residuals", 1)], 1e-5, config.model_type)


def test_a_model_built_like_none_is_one_line() -> None:
    chat = chat_of(transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=D_MODEL, n_layer=2, n_head=4))
    with pytest.raises(InputError, match=r"BloomForCausalLM is not supported: it is not built like one of gemma2, "):
        find(chat.model)
