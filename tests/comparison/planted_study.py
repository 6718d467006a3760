"""A study of a planted model without the line before it: prompts, labels and component writes as arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from refusal.comparison.contrast import Contrast
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


@dataclass(frozen=True)
class PlantedStudy:
    """A planted model with its prompts, ready for knock-outs."""

    chat: ChatModel
    prompts: list[Prompt]
    knock_outs: KnockOuts
    truth: float

    @property
    def contrast(self) -> Contrast:
        return self.knock_outs.contrast

    @property
    def voting(self) -> list[int]:
        return np.flatnonzero(self.contrast.measurable).tolist()

    @cached_property
    def direct(self) -> Direct:
        return measure_direct(self.knock_outs, self.voting, seed=0)

    @property
    def index(self) -> float:
        return index_of(self.direct.index_drops.matrix(), self.voting)


def plant(
    plan: Plan,
    *,
    categories: Sequence[str] = CATEGORIES,
    n: int = 20,
    words: int = 0,
    template: str = TEMPLATE,
    draw: int = 0,
    label_noise: float = 0.0,
) -> PlantedStudy:
    """Write a model, and label n prompts of every category and split by their refusal score.

    ``label_noise`` is the share of prompts whose label is the wrong one; ``words`` is the seed of the vocabulary,
    ``draw`` that of the prompts.
    """
    torch.set_num_threads(1)
    vocabulary = make_vocabulary(words, categories)
    with tempfile.TemporaryDirectory() as folder:
        write_planted(Path(folder), vocabulary, plan, template)
        chat = load_chat_model(folder, name="planted")
    prompts = planted_prompts(vocabulary, n_safe=n, n_hard=n, n_toxic=n, seed=draw)
    encoded = [chat.encode(prompt.text) for prompt in prompts]
    tokens = chat.tokenizer.convert_tokens_to_ids(["I"])
    with reading(chat.model, [Site(kind, layer) for layer in range(plan.n_layers) for kind in WRITES]) as read:
        with torch.no_grad():
            score = refusal_score(chat.model(**chat.pad(encoded).inputs()).logits[:, -1], tokens).numpy()
        writes = torch.stack([x[:, -1] for x in read.values()], 1).unflatten(1, (plan.n_layers, len(WRITES)))
    wrong = np.random.default_rng([draw, 9]).random(len(prompts)) < label_noise
    contrast = Contrast(
        categories=list(categories),
        prompts=encoded,
        category=np.array([categories.index(prompt.category) for prompt in prompts]),
        refused=(score > 0) ^ wrong,
        half=np.arange(len(prompts)) % 2,
        score=score,
        writes=writes.numpy(),
    )
    return PlantedStudy(chat, prompts, KnockOuts(chat, contrast, tokens), truth(plan, categories)["index"])
