"""What a model answers: its most likely token again and again, continued from the cache of the prompts' own pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from refusal.models.chat import Batch, ChatModel
from refusal.models.refusal_score import is_decided, refused


class Greedy:
    """The greedy responses to a batch of prompts, a token of each more at every step.

    Args:
        chat: The model.
        batch: The prompts, padded on the left.
        logits: What they end in, [batch, vocab].
        cache: What their pass has filled.
        n_tokens: How many tokens there may be.
    """

    def __init__(self, chat: ChatModel, batch: Batch, logits: Tensor, cache: Any, n_tokens: int) -> None:
        self._chat, self._cache = chat, cache
        self._width = batch.attention_mask.shape[1]
        self._mask = torch.cat([batch.attention_mask, batch.attention_mask.new_ones(len(logits), n_tokens)], 1)
        self._position = batch.position_ids.gather(1, batch.last[:, None])
        self._ends = torch.tensor(sorted(chat.end_ids), dtype=torch.long, device=logits.device)
        self._tokens = [logits.argmax(-1)]
        self.ended = torch.isin(self._tokens[0], self._ends)
        """Which responses have come to their end, bool [batch]."""

    def step(self) -> None:
        """Run the last token of each response, and choose the next."""
        self._position = self._position + 1
        output = self._chat.model(
            input_ids=self._tokens[-1][:, None],
            attention_mask=self._mask[:, : self._width + len(self._tokens)],
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._tokens.append(output.logits[:, -1].argmax(-1))
        self.ended = self.ended | torch.isin(self._tokens[-1], self._ends)

    def run(self, n_tokens: int) -> None:
        """Go on until all responses have so many tokens, or have ended."""
        while len(self._tokens) < n_tokens and not bool(self.ended.all()):
            self.step()

    def refusals(self, n_tokens: int, phrases: Sequence[str]) -> list[bool]:
        """Return which responses of at most so many tokens refuse; they go on only until that is known of all."""
        for n in range(1, n_tokens + 1):
            self.run(n)
            if all(is_decided(text, phrases) for text in self.texts(n)):
                break
        return [refused(text, phrases) for text in self.texts(n_tokens)]

    @property
    def ids(self) -> Tensor:
        """The tokens up to now, those after a response's end included, [batch, n]."""
        return torch.stack(self._tokens, 1)

    def texts(self, n_tokens: int) -> list[str]:
        """Return the first so many tokens of the responses, up to their ends, as text without special tokens."""
        ids = _cut(self.ids[:, :n_tokens].tolist(), self._chat.end_ids)
        return self._chat.tokenizer.batch_decode(ids, skip_special_tokens=True)


def _cut(responses: Sequence[list[int]], ends: set[int]) -> list[list[int]]:
    """Cut each response before the token that ends it."""
    return [tokens[: next((i for i, token in enumerate(tokens) if token in ends), None)] for tokens in responses]
