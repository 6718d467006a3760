"""Llama and those that keep its block: x + attention(norm(x)), then + mlp(norm(x))."""

from __future__ import annotations

from refusal.models.architectures import Architecture

ARCHITECTURE = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3", "phi3"),
    blocks=("model.layers", "model.language_model.layers"),  # the second where images are read, too
    attention="self_attn",
    mlp="mlp",
    neurons="mlp.down_proj",
    norm="norm",
)
