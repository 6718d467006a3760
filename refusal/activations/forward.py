"""Run one batch of prompts: a prefill gives rows, component writes and logits; its cache goes on to the response.

Every prompt is run once. Hooks keep the rows that are wanted and nothing else, so that memory does not grow with the
number of sites times the length of the prompts. Where neither a response nor a score is asked for, the layers after
the last wanted site are not run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.activations.recipe import Recipe
from refusal.models.chat import Batch, ChatModel, Encoded
from refusal.models.hooks import editing
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


class _Enough(Exception):
    """All that is wanted has been read."""


class _Reader:
    """Keeps what is wanted of each site during one forward pass."""

    def __init__(self, chat: ChatModel, recipe: Recipe, ids: Sequence[str]) -> None:
        self._chat, self._ids = chat, ids
        self._sites = set(recipe.sites)
        self._components = components(chat.n_layers) if recipe.writes else []
        self._wanted = sorted({*recipe.sites, *self._components})
        self._stops = not (recipe.has_scores or recipe.has_responses)

    def prefill(self, batch: Batch, index: Tensor, rows: dict[Site, Tensor], last: dict[Site, Tensor]) -> Any:
        """Run the prompts; return the model's output, or None if its last layers were not needed.

        Args:
            batch: The padded prompts.
            index: Which tokens of the flattened batch become rows.
            rows: Filled with each site's [n_rows, d_model].
            last: Filled with each component's write at the last position, [batch, d_model].
        """
        at = torch.arange(len(batch.last), device=batch.last.device)

        def read(site: Site, x: Tensor) -> None:
            if site in self._sites:
                rows[site] = x.reshape(-1, x.shape[-1])[index.to(x.device)]
            if site in self._components:
                last[site] = x[at.to(x.device), batch.last.to(x.device)]
            if self._stops and site == self._wanted[-1]:
                raise _Enough

        with suppress(_Enough), self._reading(self._wanted, read):
            columns = batch.last.unique()
            return self._chat.model(**batch.inputs(), use_cache=not self._stops, logits_to_keep=columns)
        return None

    def step(self, rows: dict[Site, Tensor]) -> AbstractContextManager[None]:
        """Return a context in which a pass over one token of each prompt fills ``rows`` with [batch, d_model]."""

        def read(site: Site, x: Tensor) -> None:
            rows[site] = x[:, -1]

        return self._reading(sorted(self._sites), read)

    def check_finite(self, values: Mapping[Site, Tensor], owners: np.ndarray) -> None:
        """Raise an ``InputError`` unless all is finite; row i of the values belongs to prompt ``owners[i]``."""
        for site, x in values.items():
            low, high = torch.aminmax(x) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
            if bool((high - low).isfinite()):  # NaN goes through both; an overflow of the difference is looked into
                continue
            bad = (~x.isfinite().all(-1)).nonzero()
            if len(bad):
                raise InputError(
                    f"activations at {site} are not finite for prompt {self._ids[owners[int(bad[0])]]}; "
                    "the model overflows in this type: try model.dtype=float32"
                )

    def _reading(self, sites: Sequence[Site], read: Callable[[Site, Tensor], None]) -> AbstractContextManager[None]:
        def edit(site: Site) -> Callable[[Tensor], Tensor]:
            def keep(x: Tensor) -> Tensor:
                read(site, x)
                return x

            return keep

        return editing(self._chat.model, {site: edit(site) for site in sites})


def components(n_layers: int) -> list[Site]:
    """Return the sites of all component writes, in the order of computation."""
    return [Site(kind, layer) for layer in range(n_layers) for kind in ("attention", "mlp")]


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
    batch, reader = chat.pad(prompts), _Reader(chat, recipe, ids)
    width = batch.input_ids.shape[1]
    ends = batch.last.tolist()
    flat = [i * width + ends[i] + 1 - len(prompt.ids) + positions[i] for i, prompt in enumerate(prompts)]
    rows: dict[Site, Tensor] = {}
    last: dict[Site, Tensor] = {}
    with torch.inference_mode():
        output = reader.prefill(batch, torch.from_numpy(np.concatenate(flat)), rows, last)
        reader.check_finite(rows, np.repeat(np.arange(len(prompts)), [len(asked) for asked in positions]))
        reader.check_finite(last, np.arange(len(prompts)))
        logits, responses, response_rows = None, Responses.none(len(prompts)), {}
        if output is not None:
            logits = _last_logits(output.logits, batch)
            if recipe.has_responses:
                responses, response_rows = _respond(chat, reader, batch, logits, output.past_key_values, recipe)
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


def _last_logits(logits: Tensor, batch: Batch) -> Tensor:
    """Pick each prompt's last position, float32 [batch, vocab], from logits at the batch's distinct last columns."""
    columns = batch.last.unique()
    at = torch.searchsorted(columns, batch.last)
    return logits[torch.arange(len(at), device=logits.device), at.to(logits.device)].float()


def _stack_writes(n_layers: int, last: Mapping[Site, Tensor]) -> Tensor:
    """[batch, n_layers, 2, d_model]"""
    home = last[Site("attention", 0)].device  # with a device map, layers are on several
    stacked = torch.stack([last[site].to(home) for site in components(n_layers)], 1)
    return stacked.unflatten(1, (n_layers, 2))


def _respond(
    chat: ChatModel, reader: _Reader, batch: Batch, logits: Tensor, cache: Any, recipe: Recipe
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
    prompt, step = _where(alive, n_prompts)
    rows = {site: torch.stack([read[site] for read in kept], 1)[prompt, step] for site in recipe.sites if kept}
    reader.check_finite(rows, prompt)
    texts = chat.tokenizer.batch_decode(_cut(ids.tolist(), chat.end_ids), skip_special_tokens=True)
    return Responses(texts, ids[:, 0].tolist(), prompt, step, ids.cpu().numpy()[prompt, step]), rows


def _where(alive: Sequence[Tensor], n_prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (prompt, step) of each response token that is read, sorted by prompt."""
    if not alive:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    prompt, step = np.nonzero(torch.stack(list(alive), 1).cpu().numpy().reshape(n_prompts, -1))
    return prompt, step


def _cut(responses: list[list[int]], ends: set[int]) -> list[list[int]]:
    """Cut each response before the token that ends it."""
    return [tokens[: next((i for i, token in enumerate(tokens) if token in ends), None)] for tokens in responses]
