"""Before a model is used: do left-padded batches give what single prompts give?

A model that ignores the attention mask, or counts positions from the padding, would fill a store with wrong numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from refusal import InputError
from refusal.models.chat import ChatModel

N_PROMPTS = 4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.03}
"""Largest difference of log-probabilities among the likely tokens, in nats."""
LIKELY = 20


@torch.no_grad()
def check_padding(chat: ChatModel, texts: Sequence[str]) -> None:
    """Compare the last logits of a padded batch of prompts with those of each prompt alone.

    Raises:
        InputError: They differ by more than rounding.
    """
    ordered = sorted(texts, key=len)
    chosen = [ordered[i * (len(ordered) - 1) // (N_PROMPTS - 1)] for i in range(N_PROMPTS)]
    prompts = [chat.encode(text) for text in chosen]
    padded = chat.model(**chat.pad(prompts)._asdict()).logits[:, -1].float().log_softmax(-1)
    alone = (
        torch.cat([chat.model(**chat.pad([one])._asdict()).logits[:, -1] for one in prompts]).float().log_softmax(-1)
    )
    likely = alone.topk(min(LIKELY, alone.shape[-1]), dim=-1).indices
    difference = float((padded - alone).gather(-1, likely).abs().max())
    tolerance = TOLERANCE.get(chat.model.dtype, TOLERANCE[torch.bfloat16])
    if not difference <= tolerance:
        raise InputError(
            f"{chat.name} gives other results for padded batches than for single prompts "
            f"(log-probabilities differ by {difference:.3g}, over {tolerance}); try model.attn_implementation=eager"
        )
