"""A planted model with its prompts and their component writes: a study without the line before it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from refusal.comparison.contrast import N_HALVES, Contrast
from refusal.comparison.knockout import WRITES, KnockOuts
from refusal.comparison.transfer import Direct, index_of, measure_direct
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.hooks import reading
from refusal.models.planted import TEMPLATE, write_planted
from refusal.models.planted_plan import Plan, truth
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import CATEGORIES, Prompt

SYSTEM_TEMPLATE = "<user> " + TEMPLATE.replace(" <assistant>", " <end> <user> <assistant>")
"""Fixed text before the instruction, and three tokens after it."""
BATCH_SIZE = 256


@dataclass(frozen=True)
class PlantedStudy:
    """A planted model with its prompts, ready for knock-outs."""

    chat: ChatModel
    prompts: list[Prompt]
    knock_outs: KnockOuts
    transfer: np.ndarray
    """The causal transfer that the written weights have, [n_categories, n_categories]."""

    @property
    def contrast(self) -> Contrast:
        """The prompts with their labels, scores and writes."""
        return self.knock_outs.contrast

    @property
    def voting(self) -> list[int]:
        """The categories that can be measured."""
        return np.flatnonzero(self.contrast.measurable).tolist()

    @property
    def truth(self) -> float:
        """The index that the written weights have, over the categories that can be measured."""
        return index_of(self.transfer, self.voting)

    @cached_property
    def direct(self) -> Direct:
        """The ``direct`` reading."""
        return measure_direct(self.knock_outs, self.voting, seed=0)

    @property
    def index(self) -> float:
        """The monolithicity index."""
        return index_of(self.direct.index_drops.matrix(), self.voting)


def plant(
    plan: Plan,
    *,
    categories: Sequence[str] = CATEGORIES,
    n: int = 20,
    n_hard: int | None = None,
    n_safe: int | None = None,
    words: int = 0,
    template: str = TEMPLATE,
    draw: int = 0,
    label_noise: float = 0.0,
) -> PlantedStudy:
    """Write a model, and label its prompts by their refusal score.

    Args:
        plan: What is planted.
        categories: Of the prompts.
        n: Toxic prompts a category.
        n_hard: Hard prompts a category; None: as many.
        n_safe: Safe prompts a category; None: as many.
        words: Seed of the vocabulary.
        template: The chat template.
        draw: Seed of the prompts.
        label_noise: Share of the prompts whose label is the wrong one.
    """
    torch.set_num_threads(1)  # the matrices are tiny
    vocabulary = make_vocabulary(words, categories)
    with tempfile.TemporaryDirectory() as folder:
        write_planted(Path(folder), vocabulary, plan, template)
        chat = load_chat_model(folder, name="planted")
    hard, safe = (n if count is None else count for count in (n_hard, n_safe))
    prompts = planted_prompts(vocabulary, n_safe=safe, n_hard=hard, n_toxic=n, seed=draw)
    encoded = [chat.encode(prompt.text) for prompt in prompts]
    tokens = chat.tokenizer.convert_tokens_to_ids(["I"])
    sites = [Site(kind, layer) for layer in range(plan.n_layers) for kind in WRITES]
    scores, writes = [], []
    for start in range(0, len(encoded), BATCH_SIZE):
        with torch.no_grad(), reading(chat.model, sites) as read:
            batch = chat.pad(encoded[start : start + BATCH_SIZE])
            scores.append(refusal_score(chat.model(**batch.inputs()).logits[:, -1], tokens))
            writes.append(torch.stack([read[site][:, -1] for site in sites], 1))
    score = torch.cat(scores).numpy()
    wrong = np.random.default_rng([draw, 9]).random(len(prompts)) < label_noise
    contrast = Contrast(
        categories=list(categories),
        prompts=encoded,
        category=np.array([categories.index(prompt.category) for prompt in prompts]),
        refused=(score > 0) ^ wrong,
        half=np.arange(len(prompts)) % N_HALVES,
        score=score,
        writes=torch.cat(writes).unflatten(1, (plan.n_layers, len(WRITES))).numpy(),
    )
    return PlantedStudy(chat, prompts, KnockOuts(chat, contrast, tokens), np.array(truth(plan, categories)["transfer"]))
