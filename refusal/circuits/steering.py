"""Take a category's circuit out of a model while it reads prompts, or switch it on, and see what it answers.

Taken out, the circuit's nodes are set to the baseline of the prompt's own category; switched on, they are set to their
mean over the category's refused training prompts. A factor goes a part of that way, or beyond. Only the prompt's last
tokens are changed, those that were attributed; the response goes on without the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.baseline import Baseline, baseline_of
from refusal.circuits.circuit import Circuit
from refusal.circuits.experiment import Experiment
from refusal.circuits.interventions import leaving, live_in
from refusal.models.hooks import Edit, editing
from refusal.models.refusal_score import refusal_score, refused
from refusal.models.sites import Site


@dataclass(frozen=True)
class Answer:
    """What the model says to a prompt."""

    score: float
    """Refusal score, nats."""
    refused: bool
    response: str


@dataclass(frozen=True)
class Steered:
    """A prompt, answered without and with the change."""

    category: str
    prompt: str
    before: Answer
    after: Answer

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Effect:
    """What the change does to the prompts of a category."""

    category: str
    n_prompts: int
    score: tuple[float, float]
    """Mean refusal score before and after, nats."""
    refusal_rate: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)


def levels(train: Experiment, names: Sequence[str], *, add: bool) -> Baseline:
    """Return what nodes are set to on prompts of each category.

    Args:
        train: The training prompts; to switch a circuit on, the refused ones of its category.
        names: The categories of all prompts that will be steered, where a circuit is switched on.
        add: Whether it is: the level is the same for every category then.
    """
    if not add:
        return train.reference
    mean = baseline_of(replace(train, refused=np.zeros(len(train.encoded), dtype=bool)), "mean")
    features, errors = (
        {site: level.expand(len(names), -1, -1) for site, level in by_site.items()}
        for by_site in (mean.features, mean.errors)
    )
    return Baseline(mean.kind, tuple(names), features, errors)


def steer(
    prompts: Experiment,
    texts: Sequence[str],
    circuit: Circuit,
    *,
    factor: float,
    phrases: Sequence[str],
    n_tokens: int,
) -> list[Steered]:
    """Answer prompts without and with a circuit's nodes set to the experiment's baseline.

    Args:
        prompts: The prompts, with the levels as their baseline.
        texts: Their texts.
        circuit: Whose nodes.
        factor: How far they go from what they are to that level.
        phrases: Openings by which a response counts as a refusal.
        n_tokens: Greatest length of a response.
    """
    others = live_in([circuit], {site: sae.directions.shape[0] for site, sae in prompts.saes.items()}).inverted()
    answers: dict[int, list[Answer]] = {}
    for batch in prompts.batches():
        edits = leaving(prompts, batch.index, np.zeros(len(batch.index), dtype=int), others)
        part = {site: _partly(edit, factor) for site, edit in edits.items() if _has_nodes(circuit, site)}
        for change in ({}, part):
            with torch.no_grad(), editing(prompts.chat.model, change):
                logits, responses = batch.answer(n_tokens)
            with torch.no_grad():
                responses.run(n_tokens)
            scores = refusal_score(logits, prompts.refusal_tokens).tolist()
            for row, score, text in zip(batch.index.tolist(), scores, responses.texts(n_tokens), strict=True):
                answers.setdefault(row, []).append(Answer(score, refused(text, phrases), text))
    return [Steered(prompts.categories[row], texts[row], *answers[row]) for row in range(len(texts))]


def effects(steered: Sequence[Steered]) -> list[Effect]:
    """Return what became of each category's prompts, in the order of the names."""
    found = []
    for category in sorted({one.category for one in steered}):
        own = [one for one in steered if one.category == category]
        pairs = [[one.before for one in own], [one.after for one in own]]
        before, after = ((fmean(one.score for one in side), fmean(one.refused for one in side)) for side in pairs)
        found.append(Effect(category, len(own), (before[0], after[0]), (before[1], after[1])))
    return found


def _has_nodes(circuit: Circuit, site: Site) -> bool:
    return any(node.site == str(site) for node in circuit.nodes)


def _partly(edit: Edit, factor: float) -> Edit:
    """Go from x a part of the way to what the edit makes of it."""

    def partly(x: Tensor) -> Tensor:
        return (x.float() + factor * (edit(x).float() - x.float())).to(x.dtype)

    return partly
