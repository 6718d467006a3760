"""The test of a user's model before a run: it passes the families, and stops what would fill a store with errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from refusal import InputError
from refusal.models.selftest import check_model
from tests.models.tiny import D_MODEL, FAMILIES, N_LAYERS, VOCABULARY, TinyChat, chat_of, tiny

TEXTS = ["1 2 3", "4 5 6 7 8 9 10 11", "12 13", "14 15 16 17 18 19 20 21 22 23 24 25 26 27", "28"]
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": D_MODEL, "intermediate_size": 48}
SIZES |= {"num_hidden_layers": N_LAYERS, "num_attention_heads": 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family: str, side: str, dtype: torch.dtype) -> None:
    check_model(TinyChat(tiny(family, dtype).model, None, "tiny", padding_side=side), TEXTS)


def test_one_prompt_is_enough() -> None:
    check_model(tiny("llama"), TEXTS[:1])


def spoilt(family: str, name: str, spoil: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> TinyChat:
    """Return a model that makes something else of one of its inputs."""
    chat = chat_of(tiny(family).model.config, dtype=dtype)
    forward = chat.model.forward
    chat.model.forward = lambda **inputs: forward(**{**inputs, name: spoil(inputs[name])})
    return chat


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_ignores_the_mask_is_stopped(dtype: torch.dtype) -> None:
    chat = spoilt("llama", "attention_mask", torch.ones_like, dtype)
    with pytest.raises(InputError, match=r"^tiny gives other results for padded batches .* off by \d.*padding_side$"):
        check_model(chat, TEXTS)
    check_model(chat, ["1 2 3", "4 5 6"])  # without padding it is right


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_that_counts_positions_from_the_padding_is_stopped(dtype: torch.dtype) -> None:
    chat = spoilt("gpt2", "position_ids", lambda x: torch.arange(x.shape[1]).expand_as(x), dtype)
    with pytest.raises(InputError, match="other results for padded batches"):
        check_model(chat, TEXTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_that_scales_what_it_adds_is_stopped(dtype: torch.dtype) -> None:
    config = transformers.GraniteConfig(**SIZES, num_key_value_heads=2, residual_multiplier=0.22)
    message = (
        r"^GraniteForCausalLM is not supported: in block 1, residuals_1 is not residuals_0 \+ attention_1 \+ mlp_1"
    )
    with pytest.raises(InputError, match=message):
        check_model(chat_of(config, dtype=dtype), TEXTS)


def test_a_model_that_norms_what_it_adds_under_unknown_names_is_stopped() -> None:
    config = transformers.Glm4Config(**SIZES, num_key_value_heads=2, head_dim=8, pad_token_id=0)
    with pytest.raises(InputError, match=r"^Glm4ForCausalLM is not supported: in block 1, "):
        check_model(chat_of(config), TEXTS)
