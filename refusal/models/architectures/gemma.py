"""Gemma 2 and 3 norm what a component puts out before it is added: x + norm(attention(norm(x))), then the MLP alike.

So the outputs of the two post-norms, not those of attention and MLP, are what the stream receives.
"""

from __future__ import annotations

from refusal.models.architectures import Architecture

ARCHITECTURE = Architecture(
    model_types=("gemma2", "gemma3_text"),
    blocks=("model.layers", "model.language_model.layers"),  # the second where images are read, too
    attention="post_attention_layernorm",
    mlp="post_feedforward_layernorm",
    neurons="mlp.down_proj",
    norm="norm",
)
