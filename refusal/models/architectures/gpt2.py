"""GPT-2: the block of Llama with other names, learned positions and layer norms."""

from __future__ import annotations

from refusal.models.architectures import Architecture

ARCHITECTURE = Architecture(
    model_types=("gpt2",),
    blocks=("transformer.h",),
    attention="attn",
    mlp="mlp",
    neurons="mlp.c_proj",
    norm="ln_f",
)
