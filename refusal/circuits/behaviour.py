"""What becomes of the refusals when a circuit is taken out, or put in; beside it, what a reader will compare with.

On held-out prompts that were refused, and on those that were complied with, where the divergence is the price:

    circuit removed               its nodes set to the baseline
    random features removed       as many random features of the same sites, of like activity
    neurons removed               as many neurons of the MLPs, the strongest by attribution (``neurons``)
    errors removed                what the autoencoders leave out, at all sites
    difference in means removed   at every site, the deviation from the baseline projected off the difference in means
                                  between refused and complied prompts (after Arditi et al. 2024)
    circuit switched on           on complied prompts: its nodes set to their mean over the refused training prompts

They change the prompt's last tokens, those that were attributed; the greedy response then goes on without them, and
refuses or not by its phrases. As refusing is a step function of the score, the score is given, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from refusal.circuits.neurons import strongest
from refusal.models.hooks import Edit, editing, editing_neurons, has_neurons
from refusal.models.refusal_score import REFUSAL_PHRASES, refusal_score
from refusal.models.sites import Site

NEAREST = 10
"""A random stand-in is one of so many features whose activity is closest to that of the feature it stands for."""

Intervention = Callable[[Experiment, np.ndarray, np.ndarray], AbstractContextManager[None]]
"""Given prompts, the numbers of those in a batch and the circuit of each: within it, passes are changed."""


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
    """Share of prompts whose greedy response refuses."""
    score: float
    """Mean refusal score, nats."""
    kl: float
    """Mean KL divergence of the next token's distribution from the unchanged model's, nats."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return asdict(self)


def behaviour(
    train: Experiment,
    heldout: Experiment,
    circuits: Sequence[Circuit],
    *,
    rng: np.random.Generator,
    phrases: Sequence[str] = REFUSAL_PHRASES,
    n_tokens: int = 16,
) -> list[Behaviour]:
    """Intervene on held-out prompts; one line for each circuit and intervention that has prompts.

    Args:
        train: The prompts that the circuits were chosen on, some of them refused.
        heldout: Other prompts, against the baseline of ``train``.
        circuits: Circuits of side ``all`` or ``toxic``, one for a category.
        rng: Chooses the random features.
        phrases: Openings by which a response counts as a refusal.
        n_tokens: Greatest length of a response.
    """
    n_features = {site: train.saes[site].directions.shape[0] for site in train.sites}
    own = live_in(circuits, n_features)
    removals = {"none": _nothing, "circuit removed": _without(own), **_baselines(train, circuits, own, rng)}
    refusing = baseline_of(replace(train, refused=~np.asarray(train.refused, dtype=bool)), "mean")
    switched_on = _without(own)
    additions = {
        **removals,
        "circuit switched on": lambda part, *rest: switched_on(replace(part, baseline=refusing), *rest),
    }
    lines = []
    for interventions, refused in ((removals, True), (additions, False)):
        part, owner = joined(heldout, [heldout.rows(circuit.category, refused=refused) for circuit in circuits])
        found = _measure(part, owner, list(interventions.values()), phrases, n_tokens)
        lines += _lines(circuits, list(interventions), "refused" if refused else "complied", found, owner)
    return lines


def _nothing(*_: Any) -> AbstractContextManager[None]:
    return nullcontext()


def _without(live: Live) -> Intervention:
    """Set each circuit's nodes to the baseline."""
    others = live.inverted()
    return lambda part, rows, owner: editing(part.chat.model, leaving(part, rows, owner, others))


def _baselines(
    train: Experiment, circuits: Sequence[Circuit], own: Live, rng: np.random.Generator
) -> dict[str, Intervention]:
    """Return what a circuit's removal is compared with, by name."""
    n_features = {site: nodes.shape[1] - 1 for site, nodes in own.nodes.items()}
    stand_ins = live_in([_stand_in(train, circuit, rng) for circuit in circuits], n_features)
    nodes = Live({site: torch.zeros_like(nodes) for site, nodes in own.nodes.items()})
    directions = {site: torch.stack([_direction(train, site, circuit) for circuit in circuits]) for site in train.sites}
    found = {"random features removed": _without(stand_ins)}
    if has_neurons(train.chat.model):
        neurons = strongest(train, circuits)
        found["neurons removed"] = lambda part, _, owner: editing_neurons(part.chat.model, neurons.removed(owner))
    return {
        **found,
        "errors removed": _without(nodes.with_errors()),
        "difference in means removed": lambda part, rows, owner: editing(
            part.chat.model, _projected(part, rows, owner, directions)
        ),
    }


@torch.no_grad()
def _measure(
    part: Experiment, owner: np.ndarray, interventions: Sequence[Intervention], phrases: Sequence[str], n_tokens: int
) -> np.ndarray:
    """Return whether each prompt is refused, its score, and the divergence: [n_interventions, 3, n_prompts].

    The first intervention is none, and the divergence is from it.
    """
    found = np.zeros((len(interventions), 3, len(owner)))
    for batch in part.batches():
        usual = torch.zeros(())
        for number, intervention in enumerate(interventions):
            with intervention(part, batch.index, owner[batch.index]):
                logits, responses = batch.answer(n_tokens)
            log_probs = logits.log_softmax(-1)
            usual = log_probs if number == 0 else usual
            found[number, 0, batch.index] = responses.refusals(n_tokens, phrases)
            found[number, 1, batch.index] = refusal_score(logits, part.refusal_tokens).cpu().numpy()
            found[number, 2, batch.index] = (usual.exp() * (usual - log_probs)).sum(-1).cpu().numpy()
    return found


def _lines(
    circuits: Sequence[Circuit], names: Sequence[str], prompts: str, found: np.ndarray, owner: np.ndarray
) -> list[Behaviour]:
    """Return the means of what was measured, for each circuit that has prompts and each intervention."""
    return [
        Behaviour(*circuit.key, name, prompts, int(mine.sum()), *map(float, found[number][:, mine].mean(1)))
        for row, circuit in enumerate(circuits)
        if (mine := owner == row).any()
        for number, name in enumerate(names)
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
