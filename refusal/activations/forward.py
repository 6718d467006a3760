"""Run one batch of prompts: a prefill gives rows, component writes and logits; its cache goes on to the response.

Every prompt is run once. Hooks keep the rows that are wanted and nothing else, so that memory does not grow with the
number of sites times the length of the prompts. Where neither a response nor a score is asked for, the layers after
the last wanted site are not run at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.activations.reader import Reader, components
from refusal.activations.recipe import Recipe
from refusal.activations.respond import Responses, respond
from refusal.models.chat import ChatModel, Encoded
from refusal.models.realign import padded_left
from refusal.models.sites import Site


class BatchResult(NamedTuple):
    """What one batch gave; rows are in the order of the prompts, and of the positions asked for."""

    rows: dict[Site, np.ndarray]
    """Encoded activations of each site, [n_rows, d_model]."""
    response_rows: dict[Site, np.ndarray]
    """The same of response tokens, [n_response_rows, d_model]; empty where none are asked for."""
    writes: np.ndarray | None
    """Encoded component writes at the last position, [batch, n_layers, 2, d_model]."""
    logits: Tensor | None
    """At the last position, float32 [batch, vocab]; None where neither response nor score is asked for."""
    responses: Responses


def run_batch(
    chat: ChatModel,
    prompts: Sequence[Encoded],
    positions: Sequence[np.ndarray],
    recipe: Recipe,
    *,
    ids: Sequence[str],
) -> BatchResult:
    """Run padded prompts, and their greedy responses.

    Args:
        chat: The model.
        prompts: Encoded prompts.
        positions: For each prompt, which of its own tokens become rows.
        recipe: What is kept.
        ids: The prompts' ids, for messages.

    Raises:
        InputError: An activation is not finite.
    """
    batch, reader = chat.pad(prompts), Reader(chat, recipe, ids)
    width = batch.input_ids.shape[1]
    ends = batch.last.tolist()
    flat = [i * width + ends[i] + 1 - len(prompt.ids) + positions[i] for i, prompt in enumerate(prompts)]
    index = torch.from_numpy(np.concatenate(flat)).to(chat.device)
    rows: dict[Site, Tensor] = {}
    last: dict[Site, Tensor] = {}
    with torch.inference_mode():
        output = reader.prefill(batch, index, rows, last)
        reader.check_finite(rows, np.repeat(np.arange(len(prompts)), [len(asked) for asked in positions]))
        reader.check_finite(last, np.arange(len(prompts)))
        logits, responses, response_rows = None, Responses.none(len(prompts)), {}
        if output is not None:
            logits = batch.at_last(output.logits)
            if recipe.has_responses:
                cache = output.past_key_values
                responses, response_rows = respond(chat, reader, padded_left(batch, cache), logits, cache, recipe)
        writes = None if not recipe.writes else _stack_writes(chat.n_layers, last)
        return BatchResult(
            {site: encode(rows[site], recipe.dtype) for site in recipe.sites},
            {site: encode(x, recipe.dtype) for site, x in response_rows.items()},
            None if writes is None else encode(writes, recipe.dtype),
            logits,
            responses,
        )


def encode(values: Tensor, dtype: str) -> np.ndarray:
    """Turn activations into what is stored; bfloat16 becomes uint16 with the same bits."""
    if dtype == "bfloat16":
        return values.to(torch.bfloat16).view(torch.int16).cpu().numpy().view(np.uint16)
    return values.float().cpu().numpy()


def _stack_writes(n_layers: int, last: Mapping[Site, Tensor]) -> Tensor:
    """[batch, n_layers, 2, d_model]"""
    home = last[Site("attention", 0)].device  # with a device map, layers are on several
    stacked = torch.stack([last[site].to(home) for site in components(n_layers)], 1)
    return stacked.unflatten(1, (n_layers, 2))
