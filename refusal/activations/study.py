"""The prompts of a collection, encoded for a model, with the rows they will give and the shards they will fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refusal import InputError
from refusal.activations.encoding import DTYPES
from refusal.activations.plan import CALIBRATION, ShardPlan, bytes_needed, plan_shards, sample_rows
from refusal.models.chat import INSTRUCTION, TEMPLATE, ChatModel, Encoded
from refusal.models.sites import Site
from refusal.progress import warn
from refusal.prompts.prompt import Prompt


@dataclass(frozen=True)
class Options:
    """What, beside the model and the prompts, decides the content of a collection."""

    sites: tuple[Site, ...]
    response_tokens: int
    seed: int
    phrases: tuple[str, ...]
    refusal_tokens: tuple[int, ...] | None
    max_rows: int
    writes: bool
    dtype: str

    def as_json(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {**asdict(self), "sites": [str(site) for site in self.sites], "phrases": list(self.phrases)}


@dataclass(frozen=True)
class Study:
    """What will be collected."""

    prompts: Sequence[Prompt]
    encoded: Sequence[Encoded]
    positions: Sequence[np.ndarray]
    """For each prompt, which of its tokens become rows; the last is its last token."""
    failed: Mapping[int, str]
    """Why, for prompts that cannot be run, by place in the study."""
    shards: Sequence[ShardPlan]
    options: Options

    @property
    def n_rows(self) -> int:
        """Number of rows that the prompts give."""
        return sum(len(positions) for i, positions in enumerate(self.positions) if i not in self.failed)

    def bytes_needed(self, chat: ChatModel) -> int:
        """Estimate what the collection takes on disk."""
        return bytes_needed(
            self.n_rows,
            len(self.prompts),
            n_sites=len(self.options.sites),
            n_layers=chat.n_layers,
            d_model=chat.d_model,
            dtype=self.options.dtype,
            writes=self.options.writes,
        )

    def temporary_bytes(self, chat: ChatModel) -> int:
        """Estimate what it takes beside that, for a while: rows yet to be permuted, logits yet to be scored."""
        most = max(sum(len(self.positions[i]) for i in shard.prompts) for shard in self.shards)
        rows = most * len(self.options.sites) * chat.d_model * DTYPES[self.options.dtype].itemsize
        n_waiting = sum(len(shard.prompts) for shard in self.shards if shard.fold == CALIBRATION)
        logits = n_waiting * chat.model.config.vocab_size * 4 if self.options.refusal_tokens is None else 0
        return rows + logits


def make_study(chat: ChatModel, prompts: Sequence[Prompt], options: Options) -> Study:
    """Encode the prompts and plan their shards; without running the model.

    Rows are the tokens of the instruction and of the template after it: BOS and the fixed text before are left
    out, as their huge norms ruin an autoencoder. Past ``max_rows`` each prompt gives a seeded sample of its rows,
    always with the last, so that every prompt keeps its labels, its component writes and its last position.

    Raises:
        InputError: There are no prompts, or more than ``max_rows``.
    """
    if not prompts:
        raise InputError("there are no prompts to collect activations for")
    encoded = [chat.encode(prompt.text) for prompt in prompts]
    candidates = [_candidates(prompt) for prompt in encoded]
    positions = sample_rows(candidates, options.max_rows, options.seed)
    kept, total = sum(map(len, positions)), sum(map(len, candidates))
    if kept < total:
        warn(f"max_rows={options.max_rows}: a random {kept:,} of {total:,} rows are kept, with every last position")
    shards = plan_shards(prompts, [len(rows) for rows in positions], options.seed)
    failed = _too_long(chat, encoded, options.response_tokens)
    return Study(prompts, encoded, positions, failed, shards, options)


def _candidates(prompt: Encoded) -> np.ndarray:
    wanted = np.isin(prompt.kinds, (INSTRUCTION, TEMPLATE))
    wanted[-1] = True
    return np.flatnonzero(wanted)


def _too_long(chat: ChatModel, encoded: Sequence[Encoded], response_tokens: int) -> dict[int, str]:
    limit: Any = getattr(chat.model.config, "max_position_embeddings", None)
    if limit is None:
        return {}
    return {
        i: f"its {len(prompt.ids)} tokens and a response of {response_tokens} exceed the model's context of {limit}"
        for i, prompt in enumerate(encoded)
        if len(prompt.ids) + response_tokens > limit
    }
