"""GPT-NeoX (Pythia), as a rule with parallel blocks: x + attention(norm(x)) + mlp(norm'(x)), both of the same x."""

from __future__ import annotations

from refusal.models.architectures import Architecture

ARCHITECTURE = Architecture(
    model_types=("gpt_neox",),
    blocks=("gpt_neox.layers",),
    attention="attention",
    mlp="mlp",
    neurons="mlp.dense_4h_to_h",
    norm="final_layer_norm",
)
