"""Run only the end of prompts again, as often as wanted, from a cache of everything before it.

Refusal is read, and interventions are made, at the last tokens of a prompt. What comes before them does not
change, so its keys and values are computed once for a batch; each further pass costs one token (or a few)
instead of the whole prompt. Hooks that are active see tensors [batch, n_suffix, d_model]; gradients flow
through the suffix. The padding is always on the left, so that a suffix is the same columns of every prompt. Layers
that attend to a sliding window keep no more than the window; a pass appends to a copy of what they keep.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal.models.chat import Batch, ChatModel, Encoded
from refusal.models.greedy import Greedy


@dataclass
class SuffixBatch:
    """Prompts whose beginning has been run."""

    index: np.ndarray
    """Which of the prompts these are, int [batch]."""
    n_suffix: int
    """Number of tokens that each pass runs."""
    _chat: ChatModel
    _batch: Batch
    _cache: Any

    def logits(self) -> Tensor:
        """Run the last ``n_suffix`` tokens under whatever hooks are active; return float32 [batch, vocab]."""
        return self._run()[0]

    def answer(self, n_tokens: int) -> tuple[Tensor, Greedy]:
        """Do the same, and return the greedy responses that begin so, too; at most so many tokens long."""
        logits, cache = self._run()
        return logits, Greedy(self._chat, self._batch, logits, cache, n_tokens)

    def _run(self) -> tuple[Tensor, Any]:
        output = self._chat.model(
            input_ids=self._batch.input_ids[:, -self.n_suffix :],
            attention_mask=self._batch.attention_mask,
            position_ids=self._batch.position_ids[:, -self.n_suffix :],
            past_key_values=copied(self._cache),
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float(), output.past_key_values


def copied(cache: Any) -> Any:
    """Return a cache for a pass to append to; the tensors themselves are shared."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own


def suffix_batches(
    chat: ChatModel, prompts: Sequence[Encoded], *, n_suffix: int = 1, batch_size: int = 64
) -> Iterator[SuffixBatch]:
    """Yield the prompts in batches of similar length, each with its beginning already run.

    Every prompt must have more than ``n_suffix`` tokens.
    """
    for index in _by_length(prompts, batch_size):
        batch = chat.pad([prompts[i] for i in index], "left")
        yield SuffixBatch(index, n_suffix, chat, batch, _prefix_cache(chat, batch, n_suffix))


def _by_length(prompts: Sequence[Encoded], batch_size: int) -> list[np.ndarray]:
    order = np.argsort([len(prompt.ids) for prompt in prompts], kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _prefix_cache(chat: ChatModel, batch: Batch, n_suffix: int) -> Any:
    with torch.no_grad():
        output = chat.model(
            input_ids=batch.input_ids[:, :-n_suffix],
            attention_mask=batch.attention_mask[:, :-n_suffix],
            position_ids=batch.position_ids[:, :-n_suffix],
            use_cache=True,
            logits_to_keep=1,
        )
    return output.past_key_values
