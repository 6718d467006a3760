"""Logit lens: which tokens a direction of the residual stream makes likelier by itself, past all later blocks.

Logits of a direction d: U norm(d) - U norm(0), with the model's own last norm and unembedding U. The length of d does
not count, as the norm takes it away; what the norm adds to everything (its bias) is taken off.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; for decoder rows of an SAE, Bricken et al. 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refusal.models.architectures import find


def logit_lens(model: Any, directions: Tensor) -> Tensor:
    """Return what each direction [n, d_model] adds to the logits, float32 [n, vocab], on the CPU.

    Raises:
        InputError: The model's architecture is not one whose modules are known.
    """
    family, _ = find(model)
    norm, unembed = family.final_norm(model), model.get_output_embeddings()
    weight = unembed.weight
    unit = directions.to(weight.device, torch.float32)
    unit = unit / unit.norm(dim=1, keepdim=True).clamp(min=1e-12) * unit.shape[1] ** 0.5  # as long as the stream is
    with torch.no_grad():
        at_zero = norm(torch.zeros_like(unit[:1]).to(weight.dtype))
        return unembed(norm(unit.to(weight.dtype)) - at_zero).float().cpu()
