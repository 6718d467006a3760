"""What becomes of the refusals when a circuit is taken out, or put in; beside it, what a reader will compare with.

On held-out refused prompts: the circuit's nodes removed (set to the baseline); as many random features of the same
sites and of like activity removed; all SAE errors removed; and, at every site, the deviation from the baseline
projected off the difference in means between refused and complied prompts (after Arditi et al. 2024). On held-out
complied prompts: the circuit switched on, its nodes set to their mean over the refused training prompts. A prompt
counts as refused if its most likely first token is a refusal token. As refusing is a step function of the score, the
score is given, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refusal.circuits.baseline import baseline_of
from refusal.circuits.circuit import ERROR, Circuit
from refusal.circuits.experiment import Experiment
from refusal.circuits.interventions import Live, joined, leaving, live_in
from refusal.models.hooks import Edit, editing
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site

NEAREST = 10
"""A random stand-in is one of so many features whose activity is closest to that of the feature it stands for."""

Intervention = Callable[[Experiment, np.ndarray, np.ndarray], Mapping[Site, Edit]]
"""Given prompts, the numbers of those in a batch and the circuit of each: what to change at which sites."""


@dataclass(frozen=True)
class Behaviour:
    """What one intervention does to the held-out prompts of one circuit."""

    category: str
    side: str
    intervention: str
    prompts: str
    """``refused`` or ``complied``: what the unchanged model did."""
    n_prompts: int
    refusal_rate: float
    """Share of prompts whose most likely first token is a refusal token."""
    score: float
    """Mean refusal score, nats."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)


def behaviour(
    train: Experiment, heldout: Experiment, circuits: Sequence[Circuit], *, rng: np.random.Generator
) -> list[Behaviour]:
    """Intervene on held-out prompts; one line for each circuit and intervention that has prompts.

    Args:
        train: The prompts that the circuits were chosen on, some of them refused.
        heldout: Other prompts, against the baseline of ``train``.
        circuits: Circuits of side ``all`` or ``toxic``, one for a category.
        rng: Chooses the random features.
    """
    n_features = {site: train.saes[site].directions.shape[0] for site in train.sites}
    own = live_in(circuits, n_features)
    stand_ins = live_in([_stand_in(train, circuit, rng) for circuit in circuits], n_features)
    features = Live({site: torch.zeros_like(nodes) for site, nodes in own.nodes.items()}).with_errors().inverted()
    directions = {site: torch.stack([_direction(train, site, circuit) for circuit in circuits]) for site in train.sites}
    refusing = baseline_of(replace(train, refused=~np.asarray(train.refused, dtype=bool)), "mean")
    removals: dict[str, Intervention] = {
        "none": lambda *_: {},
        "circuit removed": lambda part, rows, owner: leaving(part, rows, owner, own.inverted()),
        "random features removed": lambda part, rows, owner: leaving(part, rows, owner, stand_ins.inverted()),
        "errors removed": lambda part, rows, owner: leaving(part, rows, owner, features),
        "difference in means removed": lambda part, rows, owner: _projected(part, rows, owner, directions),
    }
    additions: dict[str, Intervention] = {
        "none": lambda *_: {},
        "circuit switched on": lambda part, rows, owner: leaving(
            replace(part, baseline=refusing), rows, owner, own.inverted()
        ),
    }
    removed = _measure(heldout, circuits, removals, refused=True)
    return removed + _measure(heldout, circuits, additions, refused=False)


def _measure(
    heldout: Experiment, circuits: Sequence[Circuit], interventions: Mapping[str, Intervention], *, refused: bool
) -> list[Behaviour]:
    part, owner = joined(heldout, [heldout.rows(circuit.category, refused=refused) for circuit in circuits])
    found = np.zeros((len(interventions), 2, len(owner)))  # whether refused, score
    tokens = torch.tensor(list(part.refusal_tokens), device=part.chat.device)
    for batch in part.batches():
        for number, intervention in enumerate(interventions.values()):
            edits = intervention(part, batch.index, owner[batch.index])
            with torch.no_grad(), editing(part.chat.model, edits):
                logits = batch.logits()
            found[number, 0, batch.index] = torch.isin(logits.argmax(-1), tokens).cpu().numpy()
            found[number, 1, batch.index] = refusal_score(logits, part.refusal_tokens).cpu().numpy()
    kind = "refused" if refused else "complied"
    return [
        Behaviour(
            *circuit.key, name, kind, int(mine.sum()), *(float(value) for value in found[number][:, mine].mean(1))
        )
        for row, circuit in enumerate(circuits)
        if (mine := owner == row).any()
        for number, name in enumerate(interventions)
    ]


def _stand_in(train: Experiment, circuit: Circuit, rng: np.random.Generator) -> Circuit:
    """Return a circuit of random features, each at the site and of about the mean activity of one of the circuit's."""
    rows = train.rows(circuit.category, refused=True)
    nodes = []
    for site in train.sites:
        own = circuit.features(str(site))
        if not own or not len(rows):
            continue
        activity = train.split(site, rows).f.mean((0, 1)).cpu().numpy()
        free = np.setdiff1d(np.arange(len(activity)), own)
        for node in circuit.nodes:
            if node.site == str(site) and node.feature != ERROR and len(free):
                nearest = np.argsort(np.abs(activity[free] - activity[node.feature]), kind="stable")[:NEAREST]
                chosen = free[rng.choice(nearest)]
                nodes.append(replace(node, feature=int(chosen)))
                free = free[free != chosen]
    return replace(circuit, nodes=tuple(nodes))


def _direction(train: Experiment, site: Site, circuit: Circuit) -> Tensor:
    """Return the unit difference in means at each position, [n_positions, d_model]; 0 where there is none."""
    x = train.readings.x[site]
    refused, complied = (train.rows(circuit.category, refused=which) for which in (True, False))
    if not len(refused) or not len(complied):
        return torch.zeros(x.shape[1:])
    return functional.normalize(x[refused].mean(0) - x[complied].mean(0), dim=-1)


def _projected(
    part: Experiment, rows: np.ndarray, owner: np.ndarray, directions: Mapping[Site, Tensor]
) -> dict[Site, Edit]:
    """Project, at every site, the deviation from the baseline off each prompt's own direction."""

    def edit(site: Site) -> Edit:
        x0, direction = part.baseline_x(site, rows), directions[site][owner].to(part.chat.device)

        def off(x: Tensor) -> Tensor:
            along = ((x.float() - x0) * direction).sum(-1, keepdim=True)
            return (x.float() - along * direction).to(x.dtype)

        return off

    return {site: edit(site) for site in part.sites}
