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
from refusal.models.greedy import Greedy
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
    greedy = Greedy(chat, batch, logits, cache, max(recipe.response_tokens, recipe.response_positions + 1))
    alive, kept = [], []  # of each step that is read: which responses have a token there, and its activations
    while len(kept) < recipe.response_positions and not bool(greedy.ended.all()):
        read: dict[Site, Tensor] = {}
        alive.append(~greedy.ended)
        with reader.step(read):
            greedy.step()
        kept.append(read)
    greedy.run(recipe.response_tokens)
    prompt, place = _where(alive, len(logits))
    rows = {site: torch.stack([read[site] for read in kept], 1)[prompt, place] for site in recipe.sites if kept}
    reader.check_finite(rows, prompt)
    ids = greedy.ids.cpu().numpy()
    return Responses(greedy.texts(recipe.response_tokens), ids[:, 0].tolist(), prompt, place, ids[prompt, place]), rows


def _where(alive: Sequence[Tensor], n_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (prompt, step) of each response token that is read, sorted by prompt."""
    table = torch.stack(list(alive), 1).cpu().numpy() if alive else np.empty((n_prompts, 0), dtype=bool)
    prompt, step = np.nonzero(table)
    return prompt, step
