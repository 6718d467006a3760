"""A tiny random model of each family, whose prompts are numbers of tokens: "3 1 4"."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import transformers

from refusal.models.chat import ChatModel, Encoded
from refusal.models.tokens import INSTRUCTION

torch.set_num_threads(1)  # matrices this small gain nothing from a second, and other tests need it

VOCABULARY, D_MODEL, N_LAYERS, WINDOW = 40, 32, 3, 5
_WORDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
_SIZES = {**_WORDS, "hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_LAYERS}
_GROUPED = {**_SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
_ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
_NEOX = {
    **_SIZES,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
}
_GEMMA = {
    **_GROUPED,
    "head_dim": 12,  # not d_model / n_heads
    "query_pre_attn_scalar": 24,  # not d_head
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_GROUPED, **_ROTARY}),
    "mistral": ("MistralConfig", {**_GROUPED, **_ROTARY, "sliding_window": WINDOW}),
    "qwen2": ("Qwen2Config", {**_GROUPED, **_ROTARY}),
    "qwen3": ("Qwen3Config", {**_GROUPED, **_ROTARY, "head_dim": 12}),
    "phi3": ("Phi3Config", {**_GROUPED, **_ROTARY, "sliding_window": WINDOW}),
    "gemma2": (
        "Gemma2Config",
        {**_GEMMA, **_ROTARY, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            **_GEMMA,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", {**_NEOX, "use_parallel_residual": True}),
    "gpt_neox_sequential": ("GPTNeoXConfig", {**_NEOX, "use_parallel_residual": False}),
    "gpt2": (
        "GPT2Config",
        {**_WORDS, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 128},
    ),
}
FAMILIES = list(CONFIGS)


class TinyChat(ChatModel):
    """A model without tokenizer."""

    def __post_init__(self) -> None:
        pass

    @property
    def pad_id(self) -> int:
        return 0

    def encode(self, text: str, max_tokens: int | None = None) -> Encoded:
        ids = [int(token) for token in text.split()]
        return Encoded(ids, np.full(len(ids), INSTRUCTION, np.uint8), np.zeros(len(ids), dtype=bool))


def chat_of(config: Any, *, dtype: torch.dtype = torch.float32, **options: Any) -> TinyChat:
    """Make a model from its configuration, with random weights, norms and biases."""
    model = transformers.AutoModelForCausalLM.from_config(config, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:  # norms begin at 1 (Gemma's at 0), biases at 0
                weight.add_(0.3 * noise)
            else:
                weight.copy_(1.5 * noise / weight.shape[-1] ** 0.5)
    return TinyChat(model.to(dtype).eval().requires_grad_(False), None, "tiny")


@cache
def tiny(family: str, dtype: torch.dtype = torch.float32) -> TinyChat:
    """Return the family's model; tests must not change it."""
    name, options = CONFIGS[family]
    return chat_of(getattr(transformers, name)(**options), dtype=dtype)


def prompts(lengths: list[int], seed: int = 0) -> list[Encoded]:
    """Return random prompts of these lengths."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(map(str, rng.integers(VOCABULARY, size=length))) for length in lengths]
    return [TinyChat(None, None, "").encode(text) for text in texts]
