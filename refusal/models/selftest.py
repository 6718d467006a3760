"""Before a model is used: is what will be stored of it right?

Padding: every site of every token of a padded batch, and the logits, must equal those of the prompt alone. A model that
ignores the attention mask, or counts positions from the padding, would fill a store with wrong numbers.

Structure: what attention and MLP are said to add to the residual stream must be the difference between one block's
output and the next one's. An architecture that scales or norms its components' outputs somewhere else is found so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from refusal import InputError
from refusal.models.chat import Batch, ChatModel, Encoded
from refusal.models.hooks import editing
from refusal.models.sites import KINDS, Site

N_PROMPTS = 4
N_ROWS = 64
"""At most so many tokens of a prompt are compared, its first and last among them."""
PADDING_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Greatest |padded - alone| / |alone| of a row. On SmolLM2 (30 blocks) rounding gives 5e-6, 0.01 and 0.1, and a mask
that is ignored 0.95 or more."""
ADDITION_TOLERANCE = {torch.float32: 1e-5, torch.float16: 0.003, torch.bfloat16: 0.02}
"""Greatest |residuals_N - residuals_N-1 - attention_N - mlp_N| / |residuals_N| of a row. On SmolLM2 rounding gives
1e-7, 0.0006 and 0.005, and writes that are scaled by 0.22 before they are added 0.3."""

Rows = dict[Site, Tensor]


@torch.no_grad()
def check_model(chat: ChatModel, texts: Sequence[str]) -> None:
    """Run a few prompts, padded together and each alone.

    Args:
        chat: The model, with the padding side that will be used.
        texts: The prompts of the run; four from the shortest to the longest are taken.

    Raises:
        InputError: Padding changes results by more than rounding, or a block does not add up.
    """
    prompts = [chat.encode(text, chat.context) for text in _spread(sorted(texts, key=len))]
    alone = [_run(chat, [prompt]) for prompt in prompts]
    rows = {site: torch.cat([read[site] for read, _ in alone]) for site in alone[0][0]}
    _check_addition(chat, rows)
    padded, logits = _run(chat, prompts)
    _check_padding(chat, padded, rows)
    _check_padding(chat, {"the logits": logits}, {"the logits": torch.cat([logits for _, logits in alone])})


def _spread(texts: Sequence[str]) -> list[str]:
    return [texts[i * (len(texts) - 1) // (N_PROMPTS - 1)] for i in range(N_PROMPTS)]


def _run(chat: ChatModel, prompts: Sequence[Encoded]) -> tuple[Rows, Tensor]:
    """Return some tokens' rows at every site, [n_rows, d_model], and the logits, [batch, vocab]; float32 on the CPU."""
    batch = chat.pad(prompts)
    index = _some_tokens(batch)
    read: Rows = {}

    def keeper(site: Site) -> Callable[[Tensor], Tensor]:
        def keep(x: Tensor) -> Tensor:
            read[site] = x.flatten(0, 1)[index.to(x.device)].float().cpu()
            return x

        return keep

    sites = [Site(kind, layer) for layer in range(chat.n_layers) for kind in KINDS]
    with editing(chat.model, {site: keeper(site) for site in sites}):
        output = chat.model(**batch.inputs(), use_cache=False, logits_to_keep=batch.last_columns)
    return read, batch.at_last(output.logits).cpu()


def _some_tokens(batch: Batch) -> Tensor:
    """Return the places, in the flattened batch, of at most ``N_ROWS`` tokens of each prompt, prompt by prompt."""
    width = batch.attention_mask.shape[1]
    places = []
    for row, mask in enumerate(batch.attention_mask):
        tokens = mask.nonzero()[:, 0]
        evenly = torch.linspace(0, len(tokens) - 1, min(N_ROWS, len(tokens)), device=mask.device).round().long()
        places.append(row * width + tokens[evenly])
    return torch.cat(places)


def _check_addition(chat: ChatModel, rows: Rows) -> None:
    tolerance = _tolerance(chat, ADDITION_TOLERANCE)
    for layer in range(1, chat.n_layers):
        before, after = rows[Site("residuals", layer - 1)], rows[Site("residuals", layer)]
        added = rows[Site("attention", layer)] + rows[Site("mlp", layer)]
        largest = torch.maximum(before.norm(dim=-1), after.norm(dim=-1))
        error = float(((after - before - added).norm(dim=-1) / largest).max())
        if not error <= tolerance:
            raise InputError(
                f"{type(chat.model).__name__} is not supported: in block {layer}, residuals_{layer} is not residuals_"
                f"{layer - 1} + attention_{layer} + mlp_{layer} (off by {error:.2g} of its length, over {tolerance}); "
                "docs/models.md says how a family is added"
            )


def _check_padding(chat: ChatModel, padded: Mapping[Any, Tensor], alone: Mapping[Any, Tensor]) -> None:
    tolerance = _tolerance(chat, PADDING_TOLERANCE)
    for site, expected in alone.items():
        length = expected.norm(dim=-1)
        floor = float(length.median()) or float(length.mean()) or 1.0  # a planted component is silent at most tokens
        error = float(((padded[site] - expected).norm(dim=-1) / length.clamp(min=floor)).max())
        if not error <= tolerance:
            raise InputError(
                f"{chat.name} gives other results for padded batches than for single prompts ({site} is off by "
                f"{error:.2g} of its length, over {tolerance}); try model.attn_implementation=eager or another "
                "model.padding_side"
            )


def _tolerance(chat: ChatModel, of_type: Mapping[torch.dtype, float]) -> float:
    return of_type.get(chat.model.dtype, of_type[torch.bfloat16])
