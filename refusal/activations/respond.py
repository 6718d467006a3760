"""The greedy responses to a batch, continued from its prefill's cache; their first tokens can be read, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.activations.reader import Reader
from refusal.activations.recipe import Recipe
from refusal.models.chat import Batch, ChatModel
from refusal.models.sites import Site

NO_TOKEN = -1


class Responses(NamedTuple):
    """What the model answered."""

    texts: list[str]
    """Greedy responses, without special tokens."""
    first_tokens: list[int]
    """The first token of each, or -1."""
    prompt: np.ndarray
    """For each response row, its prompt's place in the batch, ascending, [n_response_rows]."""
    step: np.ndarray
    """For each response row, its place in the response."""
    token_id: np.ndarray
    """For each response row, its token."""

    @classmethod
    def none(cls, n_prompts: int) -> Responses:
        """Return what stands for responses that were not asked for."""
        empty = np.empty(0, dtype=np.int64)
        return cls([""] * n_prompts, [NO_TOKEN] * n_prompts, empty, empty, empty)


def respond(
    chat: ChatModel, reader: Reader, batch: Batch, logits: Tensor, cache: Any, recipe: Recipe
) -> tuple[Responses, dict[Site, Tensor]]:
    """Continue greedily from the prefill's cache, reading the first response tokens where they are asked for."""
    n_prompts, width = batch.attention_mask.shape
    end_ids = torch.tensor(sorted(chat.end_ids), dtype=torch.long, device=logits.device)
    mask = torch.cat([batch.attention_mask, batch.attention_mask.new_ones(n_prompts, recipe.response_tokens)], 1)
    position = batch.position_ids.gather(1, batch.last[:, None])
    tokens = [logits.argmax(-1)]
    ended = torch.isin(tokens[0], end_ids)
    alive, kept = [], []  # of each step that is read: which responses have a token there, and its activations
    for step in range(1, max(recipe.response_tokens, recipe.response_positions + 1)):
        if bool(ended.all()):
            break
        read: dict[Site, Tensor] = {}
        position = position + 1
        inputs = {"input_ids": tokens[-1][:, None], "attention_mask": mask[:, : width + step], "position_ids": position}
        if step <= recipe.response_positions:
            alive.append(~ended)
            with reader.step(read):
                output = chat.model(**inputs, past_key_values=cache, use_cache=True)
            kept.append(read)
        else:
            output = chat.model(**inputs, past_key_values=cache, use_cache=True)
        if step < recipe.response_tokens:
            tokens.append(output.logits[:, -1].argmax(-1))
            ended = ended | torch.isin(tokens[-1], end_ids)
    ids = torch.stack(tokens, 1)
    prompt, place = _where(alive, n_prompts)
    rows = {site: torch.stack([read[site] for read in kept], 1)[prompt, place] for site in recipe.sites if kept}
    reader.check_finite(rows, prompt)
    texts = chat.tokenizer.batch_decode(_cut(ids.tolist(), chat.end_ids), skip_special_tokens=True)
    return Responses(texts, ids[:, 0].tolist(), prompt, place, ids.cpu().numpy()[prompt, place]), rows


def _where(alive: Sequence[Tensor], n_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (prompt, step) of each response token that is read, sorted by prompt."""
    table = torch.stack(list(alive), 1).cpu().numpy() if alive else np.empty((n_prompts, 0), dtype=bool)
    prompt, step = np.nonzero(table)
    return prompt, step


def _cut(responses: list[list[int]], ends: set[int]) -> list[list[int]]:
    """Cut each response before the token that ends it."""
    return [tokens[: next((i for i, token in enumerate(tokens) if token in ends), None)] for tokens in responses]
