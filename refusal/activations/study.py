"""The prompts of a collection, encoded for a model, with the rows they will give and the shards they will fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refusal import InputError
from refusal.activations.encoding import DTYPES
from refusal.activations.forward import BatchResult, run_batch
from refusal.activations.plan import CALIBRATION, ShardPlan, bytes_needed, plan_shards, sample_rows
from refusal.activations.recipe import Recipe
from refusal.models.chat import ChatModel, Encoded
from refusal.models.tokens import INSTRUCTION, TEMPLATE
from refusal.progress import warn
from refusal.prompts.prompt import Prompt


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
    recipe: Recipe

    def run(self, chat: ChatModel, batch: Sequence[int]) -> BatchResult:
        """Run some of the prompts, given by their places in the study, as one batch.

        Raises:
            InputError: An activation is not finite.
        """
        return run_batch(
            chat,
            [self.encoded[i] for i in batch],
            [self.positions[i] for i in batch],
            self.recipe,
            ids=[self.prompts[i].id for i in batch],
        )

    @property
    def n_rows(self) -> int:
        """Number of rows that the prompts give; response tokens come on top."""
        return sum(len(positions) for i, positions in enumerate(self.positions) if i not in self.failed)

    @property
    def most_rows(self) -> int:
        """Number of rows if every response is long enough."""
        return self.n_rows + self.recipe.response_positions * (len(self.prompts) - len(self.failed))

    def bytes_needed(self, chat: ChatModel) -> int:
        """Return what the collection takes on disk: activations exactly, tables about."""
        return bytes_needed(
            self.most_rows,
            len(self.prompts),
            n_sites=len(self.recipe.sites),
            n_layers=chat.n_layers,
            d_model=chat.d_model,
            dtype=self.recipe.dtype,
            writes=self.recipe.writes,
        )

    def temporary_bytes(self, chat: ChatModel) -> int:
        """Estimate what it takes beside that, for a while: rows yet to be permuted, logits yet to be scored."""
        per_prompt = self.recipe.response_positions
        most = max(sum(len(self.positions[i]) + per_prompt for i in shard.prompts) for shard in self.shards)
        rows = most * len(self.recipe.sites) * chat.d_model * DTYPES[self.recipe.dtype].itemsize
        n_waiting = sum(len(shard.prompts) for shard in self.shards if shard.fold == CALIBRATION)
        return rows + n_waiting * chat.model.config.get_text_config().vocab_size * 4 * self.recipe.learns_tokens


def make_study(chat: ChatModel, prompts: Sequence[Prompt], recipe: Recipe) -> Study:
    """Encode the prompts and plan their shards; without running the model.

    Past ``max_rows`` each prompt gives a seeded sample of its rows, always with the last of the prompt (and of the
    instruction, where it is asked for), so that every prompt keeps its labels and the positions that are compared.

    Raises:
        InputError: There are no prompts, or more than ``max_rows``.
    """
    if not prompts:
        raise InputError("there are no prompts to collect activations for")
    encoded = [chat.encode(prompt.text, max_tokens(chat, recipe)) for prompt in prompts]
    candidates = [_candidates(prompt, recipe.positions) for prompt in encoded]
    always = [_always(prompt, recipe.positions) for prompt in encoded]
    budget = recipe.max_rows - recipe.response_positions * len(prompts)
    positions = sample_rows(candidates, always, budget, recipe.seed)
    kept, total = sum(map(len, positions)), sum(map(len, candidates))
    if kept < total:
        warn(f"max_rows={recipe.max_rows}: a random {kept:,} of {total:,} rows are kept, with every last position")
    if n_cut := sum(prompt.truncated > 0 for prompt in encoded):
        warn(f"{n_cut} of {len(prompts)} prompts exceed the model's context of {chat.context} and lost their end")
    shards = plan_shards(prompts, [len(rows) for rows in positions], recipe.seed)
    return Study(prompts, encoded, positions, _too_long(chat, encoded, recipe), shards, recipe)


def max_tokens(chat: ChatModel, recipe: Recipe) -> int | None:
    """Return how many tokens a prompt may have before it is cut; None where none is."""
    if chat.context is None or recipe.too_long == "refuse":
        return None
    return chat.context - recipe.response_tokens


def last_instruction(prompt: Encoded) -> int:
    """Return the position of the last token of the instruction (the prompt's last, if it has none of its own)."""
    places = np.flatnonzero(prompt.kinds == INSTRUCTION)
    return int(places[-1]) if len(places) else len(prompt.ids) - 1


def _candidates(prompt: Encoded, positions: Sequence[str]) -> np.ndarray:
    kinds = {"instruction": [INSTRUCTION], "template": [TEMPLATE], "prompt": list(set(prompt.kinds.tolist()))}
    wanted = np.isin(prompt.kinds, [kind for name in positions for kind in kinds.get(name, ())])
    wanted[_always(prompt, positions)] = True
    return np.flatnonzero(wanted)


def _always(prompt: Encoded, positions: Sequence[str]) -> list[int]:
    last = len(prompt.ids) - 1
    return sorted({last, last_instruction(prompt)}) if "last_instruction" in positions else [last]


def _too_long(chat: ChatModel, encoded: Sequence[Encoded], recipe: Recipe) -> dict[int, str]:
    if chat.context is None:
        return {}
    room = chat.context - recipe.response_tokens
    return {
        i: f"its {len(prompt.ids)} tokens and a response of {recipe.response_tokens} exceed the model's context of "
        f"{chat.context}"
        for i, prompt in enumerate(encoded)
        if len(prompt.ids) > room
    }
