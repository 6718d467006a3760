"""Run one batch of prompts: a prefill gives rows, component writes and logits; its cache goes on to the response.

Hooks are in place during the prefill only. They keep the rows that are wanted and nothing else, so that memory
does not grow with the number of sites times the length of the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.models.chat import Batch, ChatModel, Encoded
from refusal.models.hooks import editing
from refusal.models.sites import Site


class BatchResult(NamedTuple):
    """What one batch gave; rows are in the order of the prompts, and of the positions asked for."""

    rows: dict[Site, np.ndarray]
    """Encoded activations of each site, [n_rows, d_model]."""
    writes: np.ndarray | None
    """Encoded component writes at the last position, [batch, n_layers, 2, d_model]."""
    logits: Tensor
    """At the last position, float32 [batch, vocab]."""
    first_tokens: list[int]
    """The first token of each response."""
    responses: list[str]
    """Greedy responses, without special tokens."""


def run_batch(
    chat: ChatModel,
    prompts: Sequence[Encoded],
    positions: Sequence[np.ndarray],
    sites: Sequence[Site],
    *,
    ids: Sequence[str],
    response_tokens: int,
    writes: bool,
    dtype: str,
) -> BatchResult:
    """Run prompts, padded on the left, and their greedy responses.

    Args:
        chat: The model.
        prompts: Encoded prompts.
        positions: For each prompt, which of its own tokens become rows.
        sites: Where to read them.
        ids: The prompts' ids, for messages.
        response_tokens: Greatest length of a response.
        writes: Whether to keep what every component adds at the last position.
        dtype: Type in which activations are stored.

    Raises:
        InputError: An activation is not finite.
    """
    batch = chat.pad(prompts)
    width = batch.input_ids.shape[1]
    flat = np.concatenate([i * width + width - len(prompts[i].ids) + positions[i] for i in range(len(prompts))])
    index = torch.from_numpy(flat).to(chat.device)
    owners = np.repeat(np.arange(len(prompts)), [len(rows) for rows in positions])
    rows: dict[Site, Tensor] = {}
    last: dict[Site, Tensor] = {}
    with torch.inference_mode():
        with editing(chat.model, _readers(chat, sites, index, rows, last, writes)):
            output = chat.model(**batch._asdict(), use_cache=True, logits_to_keep=1)
        _check_finite(rows, owners, ids)
        _check_finite(last, np.arange(len(prompts)), ids)
        logits = output.logits[:, -1].float()
        tokens = _respond(chat, batch, logits, output.past_key_values, response_tokens)
        stacked = _stack_writes(chat.n_layers, last) if writes else None
        return BatchResult(
            {site: encode(rows[site], dtype) for site in sites},
            None if stacked is None else encode(stacked, dtype),
            logits,
            tokens[:, 0].tolist(),
            chat.tokenizer.batch_decode(_cut(tokens.tolist(), chat.end_ids), skip_special_tokens=True),
        )


def encode(values: Tensor, dtype: str) -> np.ndarray:
    """Turn activations into what is stored; bfloat16 becomes uint16 with the same bits."""
    if dtype == "bfloat16":
        return values.to(torch.bfloat16).view(torch.int16).cpu().numpy().view(np.uint16)
    return values.float().cpu().numpy()


def _readers(
    chat: ChatModel,
    sites: Sequence[Site],
    index: Tensor,
    rows: dict[Site, Tensor],
    last: dict[Site, Tensor],
    writes: bool,
) -> dict[Site, Callable[[Tensor], Tensor]]:
    """Return what to do at each site: keep the rows, and of component writes the last position."""
    components = (
        [Site(kind, layer) for layer in range(chat.n_layers) for kind in ("attention", "mlp")] if writes else []
    )

    def reader(site: Site) -> Callable[[Tensor], Tensor]:
        def read(x: Tensor) -> Tensor:
            if site in sites:
                rows[site] = x.reshape(-1, x.shape[-1])[index]
            if site in components:
                last[site] = x[:, -1].clone()
            return x

        return read

    return {site: reader(site) for site in sorted({*sites, *components})}


def _stack_writes(n_layers: int, last: dict[Site, Tensor]) -> Tensor:
    """[batch, n_layers, 2, d_model]"""
    layers = [torch.stack([last[Site(kind, layer)] for kind in ("attention", "mlp")], 1) for layer in range(n_layers)]
    return torch.stack(layers, 1)


def _check_finite(values: dict[Site, Tensor], owners: np.ndarray, ids: Sequence[str]) -> None:
    if not values or bool(torch.stack([x.isfinite().all() for x in values.values()]).all()):
        return
    for site, x in values.items():
        bad = (~x.isfinite().all(-1)).nonzero()
        if len(bad):
            raise InputError(
                f"activations at {site} are not finite for prompt {ids[owners[int(bad[0])]]}; "
                "the model overflows in this type: try model.dtype=float32"
            )


def _respond(chat: ChatModel, batch: Batch, logits: Tensor, cache: Any, n_tokens: int) -> Tensor:
    """Continue greedily from the prefill's cache; int64 [batch, at most n_tokens]."""
    ends = torch.tensor(sorted(chat.end_ids), dtype=torch.long, device=logits.device)
    mask, position = batch.attention_mask, batch.position_ids[:, -1:]
    tokens = [logits.argmax(-1)]
    ended = torch.isin(tokens[-1], ends)
    while len(tokens) < n_tokens and not bool(ended.all()):
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        position = position + 1
        output = chat.model(
            input_ids=tokens[-1][:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
        tokens.append(output.logits[:, -1].argmax(-1))
        ended |= torch.isin(tokens[-1], ends)
    return torch.stack(tokens, 1)


def _cut(responses: list[list[int]], ends: set[int]) -> list[list[int]]:
    """Cut each response before the token that ends it."""
    return [tokens[: next((i for i, token in enumerate(tokens) if token in ends), None)] for tokens in responses]
