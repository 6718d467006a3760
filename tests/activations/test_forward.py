from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from refusal import InputError
from refusal.activations.encoding import decode
from refusal.activations.forward import BatchResult, run_batch
from refusal.activations.recipe import Recipe
from refusal.models.chat import ChatModel
from refusal.models.hooks import editing, reading
from refusal.models.sites import Site, choose
from tests.activations.conftest import tiny_chat
from tests.models.tiny import tiny as tiny_of

TEXTS = ("a b c", "d", "e f g h i j k l m n o p", "q r", "z y x w v u t s r q p o n m l k j i h g f e d c b a")


def run(chat: ChatModel, **changes: Any) -> BatchResult:
    prompts = [chat.encode(text) for text in TEXTS]
    positions = changes.pop("positions", [np.arange(len(prompt.ids)) for prompt in prompts])
    options: dict[str, Any] = {"sites": tuple(choose([], chat.n_layers, preset="every")), "response_tokens": 6}
    recipe = Recipe(**(options | changes))
    return run_batch(chat, prompts, positions, recipe, ids=[f"id-{text[0]}" for text in TEXTS])


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-4 * np.abs(b).max())


def test_every_token_equals_a_plain_unpadded_forward_pass(tiny: ChatModel) -> None:
    result = run(tiny)
    sites = choose([], tiny.n_layers, preset="every")
    start = 0
    for i, text in enumerate(TEXTS):
        ids = tiny.encode(text).ids
        with torch.no_grad(), reading(tiny.model, sites) as read:
            logits = tiny.model(torch.tensor([ids])).logits
        for site in sites:
            alone = read[site][0].numpy()
            for position in range(len(ids)):
                assert close(result.rows[site][start + position], alone[position]), (text, site, position)
        assert result.writes is not None
        for layer in range(tiny.n_layers):
            for component, kind in enumerate(("attention", "mlp")):
                assert close(result.writes[i, layer, component], read[Site(kind, layer)][0, -1].numpy())
        assert result.logits is not None
        assert close(result.logits[i].numpy(), logits[0, -1].numpy())
        start += len(ids)


def test_the_response_is_the_greedy_one(tiny: ChatModel) -> None:
    result = run(tiny)
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([tiny.encode(text).ids])
        made = tiny.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        new = made[0, ids.shape[1] :]
        assert result.responses.first_tokens[i] == new[0]
        assert result.responses.texts[i] == tiny.tokenizer.decode(new, skip_special_tokens=True)


def test_a_response_stops_at_its_end_token(tiny: ChatModel) -> None:
    def end(x: torch.Tensor) -> torch.Tensor:
        return x * 0 + ends

    # the last block's output is made the unembedding row of the end token, so that this is what the model says
    ends = tiny.model.lm_head.weight[1] * 100
    with editing(tiny.model, {Site("residuals", 1): end}):
        result = run(tiny)
    assert result.responses.texts == [""] * len(TEXTS)
    assert result.responses.first_tokens == [1] * len(TEXTS)


def test_only_the_prefill_is_read(tiny: ChatModel) -> None:
    short, long = run(tiny, response_tokens=1), run(tiny, response_tokens=8)
    for site, rows in long.rows.items():
        assert np.array_equal(rows, short.rows[site])
    assert np.array_equal(long.writes, short.writes)  # type: ignore[arg-type]
    assert not any(module._forward_hooks for module in tiny.model.modules())


def test_rows_are_the_asked_positions(tiny: ChatModel) -> None:
    site = Site("mlp", 1)
    positions = [np.array([0, 3, len(tiny.encode(text).ids) - 1]) for text in TEXTS]
    some, every = run(tiny, positions=positions, sites=(site,)), run(tiny, sites=(site,))
    starts = np.cumsum([0, *(len(tiny.encode(text).ids) for text in TEXTS)])
    flat = np.concatenate([start + asked for start, asked in zip(starts, positions, strict=False)])
    assert np.array_equal(some.rows[site], every.rows[site][flat])
    assert list(some.rows) == [site]


def test_writes_may_be_left_out_and_bfloat16_kept(tiny: ChatModel) -> None:
    site = Site("residuals", 0)
    exact, rounded = run(tiny, sites=(site,)), run(tiny, sites=(site,), writes=False, dtype="bfloat16")
    assert rounded.writes is None
    expected = torch.from_numpy(exact.rows[site]).to(torch.bfloat16).float().numpy()
    assert np.array_equal(decode(rounded.rows[site], "bfloat16"), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_names_site_and_prompt(value: float) -> None:
    chat = tiny_chat()
    chat.model.model.embed_tokens.weight[chat.tokenizer.vocab["q"]] = value  # "q r" is the first prompt with q
    texts_with_q = [text for text in TEXTS if "q" in text]
    assert texts_with_q[0] == "q r"
    with pytest.raises(InputError, match=r"attention_0 are not finite for prompt id-q;.*float32"):
        run(chat)


def greedy(chat: ChatModel, ids: list[int], n_tokens: int) -> list[int]:
    """The first tokens of the response, by a whole pass for each, up to where it ends."""
    said: list[int] = []
    while len(said) < n_tokens:
        with torch.no_grad():
            token = int(chat.model(torch.tensor([ids + said])).logits[0, -1].argmax())
        if token in chat.end_ids:
            break
        said.append(token)
    return said


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])  # the second with windows of 5 tokens
def test_response_tokens_equal_a_plain_pass_over_prompt_and_response(family: str, padding_side: str) -> None:
    chat = tiny_chat()
    if family != "llama":
        chat = replace(chat, model=tiny_of(family).model)
    chat.padding_side = padding_side
    sites = tuple(choose([], chat.n_layers, preset="every"))
    result = run(chat, sites=sites, response_positions=3, response_tokens=5)
    said = result.responses
    assert (np.diff(said.prompt) >= 0).all()
    for i, text in enumerate(TEXTS):
        here = np.flatnonzero(said.prompt == i)
        tokens = said.token_id[here].tolist()
        assert said.step[here].tolist() == list(range(len(here)))
        ids = chat.encode(text).ids
        assert tokens == greedy(chat, ids, 3)
        with torch.no_grad(), reading(chat.model, sites) as read:
            chat.model(torch.tensor([ids + tokens]))
        for site in sites:
            for row, step in zip(here, range(len(here)), strict=True):
                assert close(result.response_rows[site][row], read[site][0, len(ids) + step].numpy())


def test_a_response_that_ends_at_once_has_no_rows() -> None:
    chat = tiny_chat()
    chat.model.lm_head.weight[:] = 0  # all logits alike: the first token of the vocabulary
    chat.model.generation_config.eos_token_id = 0
    result = run(chat, response_positions=2)
    assert len(result.responses.prompt) == 0
    assert result.response_rows == {} or all(len(rows) == 0 for rows in result.response_rows.values())
