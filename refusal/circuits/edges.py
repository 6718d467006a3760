"""Join a circuit's nodes: what an upstream node contributes to the refusal score through a downstream node, directly.

The weight of up -> down on a prompt is (f_up - f0_up) * d f_down / d f_up * d m / d f_down, gradients stopped at
every chosen site between the two, at the same position; averaged over the circuit's prompts. One forward pass in
which each site's tensor is cut from its past gives all the direct derivatives; backward pass number j starts, on each
prompt, from the j-th node that the prompt's own circuit has at the site, so that circuits cost together what
the largest costs. An error node counts like a feature: upstream it adds e - e0, downstream it is e . g.

Source: Marks et al. 2024, arXiv 2403.19647, section 3.1 and appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.circuit import ERROR, Circuit, Edge
from refusal.circuits.experiment import Experiment
from refusal.models.hooks import editing
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch

Weights = dict[tuple[Site, Site], Tensor]
"""By upstream and downstream site: [n_downstream, n_circuits, n_upstream], summed over prompts."""


class Nodes(NamedTuple):
    """The nodes that the circuits have at one site."""

    union: Tensor
    """Features that any circuit has, int64 [n_union]; as an upstream node, the error has the number n_union."""
    own: Tensor
    """Each circuit's nodes as places in ``union``, int64 [n_circuits, most nodes]; -1 where it has fewer."""


def with_edges(experiment: Experiment, circuits: Sequence[Circuit], *, threshold: float) -> list[Circuit]:
    """Return the circuits with their edges.

    Args:
        experiment: The prompts that the circuits' nodes were chosen on.
        circuits: Circuits of different categories or sides.
        threshold: An edge is kept if it reaches this share of the strongest edge between features of its two sites.
    """
    rows = [prompts_of(experiment, circuit) for circuit in circuits]
    owner = torch.from_numpy(np.repeat(np.arange(len(circuits)), [len(numbers) for numbers in rows]))
    if not len(owner):
        return list(circuits)
    part = experiment.subset(np.concatenate(rows))
    nodes = {site: _nodes(circuits, site, part.chat.device) for site in part.sites}
    weights: Weights = {}
    for batch in part.batches():
        _add_batch(part, batch, owner[batch.index].to(part.chat.device), nodes, weights)
    means = {pair: (sums / torch.tensor([[max(len(r), 1)] for r in rows]).to(sums)) for pair, sums in weights.items()}
    return [
        replace(circuit, edges=tuple(_edges(number, nodes, means, threshold)))
        for number, circuit in enumerate(circuits)
    ]


def prompts_of(experiment: Experiment, circuit: Circuit) -> np.ndarray:
    """Return the prompts that a circuit is about: its category's complied ones for side ``safe``, else the refused."""
    return experiment.rows(circuit.category, refused=circuit.side != "safe")


def _nodes(circuits: Sequence[Circuit], site: Site, device: torch.device) -> Nodes:
    union = sorted({feature for circuit in circuits for feature in circuit.features(str(site))})
    place = {feature: i for i, feature in enumerate(union)} | {ERROR: len(union)}
    own = [[place[node.feature] for node in circuit.nodes if node.site == str(site)] for circuit in circuits]
    width = max(map(len, own))
    table = torch.tensor([places + [-1] * (width - len(places)) for places in own], dtype=torch.long)
    return Nodes(torch.tensor(union, dtype=torch.long, device=device), table.reshape(len(circuits), width).to(device))


def _add_batch(
    experiment: Experiment, batch: SuffixBatch, owner: Tensor, nodes: dict[Site, Nodes], weights: Weights
) -> None:
    """Add one batch to the sums; ``owner`` [batch] is the circuit of each prompt."""
    values, leaves = _cut(experiment, batch)
    changes = {site: _changes(experiment, site, batch.index, nodes[site].union) for site in experiment.sites}
    member = torch.nn.functional.one_hot(owner, len(next(iter(nodes.values())).own)).float()  # [batch, n_circuits]
    for number, down in enumerate(experiment.sites):
        if not values[down].requires_grad or not nodes[down].own.shape[1]:
            continue
        upstream = [site for site in experiment.sites[:number] if nodes[site].own.shape[1]]
        for up, gradients in _jacobian(experiment, batch, owner, nodes[down], down, values[down], leaves, upstream):
            effect = _effects(experiment, up, nodes[up].union, changes[up], gradients)
            sums = torch.einsum("bc,kbu->kcu", member, effect)
            weights[up, down] = weights[up, down] + sums if (up, down) in weights else sums


def _cut(experiment: Experiment, batch: SuffixBatch) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Run the batch with every site cut; return the tensors before the cuts, and the leaves after them."""
    values: dict[Site, Tensor] = {}
    leaves: dict[Site, Tensor] = {}

    def cut(site: Site, value: Tensor) -> Tensor:
        values[site], leaves[site] = value, value.detach().requires_grad_()
        return leaves[site]

    edits = {site: lambda value, site=site: cut(site, value) for site in experiment.sites}
    with torch.enable_grad(), editing(experiment.chat.model, edits):
        batch.logits()
    return values, leaves


def _changes(experiment: Experiment, site: Site, rows: np.ndarray, union: Tensor) -> tuple[Tensor, Tensor]:
    """Return f - f0 of the chosen features [batch, n_positions, n_union] and e - e0 [batch, n_positions, d_model]."""
    _, f, e = experiment.split(site, rows)
    f0, e0 = experiment.baseline_rows(site, rows)
    return (f - f0)[..., union], e - e0


def _jacobian(
    experiment: Experiment,
    batch: SuffixBatch,
    owner: Tensor,
    nodes: Nodes,
    down: Site,
    value: Tensor,
    leaves: dict[Site, Tensor],
    upstream: Sequence[Site],
) -> list[tuple[Site, Tensor]]:
    """Return, for each upstream site, d (f_down d m / d f_down) / d x_up, [most nodes, batch, n_positions, d_model].

    Sites that do not reach ``down`` directly are left out.
    """
    if not upstream:
        return []
    with torch.enable_grad():
        targets = _targets(experiment, batch, nodes, down, value)  # [batch, n_positions, n_union + 1]
        own = nodes.own[owner]  # [batch, most nodes]
        chosen = targets.gather(2, own.clamp(min=0)[:, None].expand(-1, targets.shape[1], -1))
        chosen = (chosen * (own >= 0)[:, None]).sum(0)  # [n_positions, most nodes]: prompts do not mix
    found: dict[Site, list[Tensor]] = {}
    inputs = [leaves[site] for site in upstream]
    for place in range(chosen.shape[1]):
        at_place: dict[Site, Tensor] = {}
        for position in range(chosen.shape[0]):
            gradients = torch.autograd.grad(chosen[position, place], inputs, retain_graph=True, allow_unused=True)
            for site, gradient in zip(upstream, gradients, strict=True):
                if gradient is not None:
                    at_place.setdefault(site, torch.zeros_like(gradient))[:, position] = gradient[:, position]
        for site, gradient in at_place.items():
            found.setdefault(site, []).append(gradient.float())
    return [(site, torch.stack(gradients)) for site, gradients in found.items()]


def _targets(experiment: Experiment, batch: SuffixBatch, nodes: Nodes, down: Site, value: Tensor) -> Tensor:
    """Return f_down d m / d f_down for the chosen features, and e . g for the error, [batch, n_positions, n_union + 1].

    d m / d f_down and g are constants: those of the unspliced model.
    """
    sae = experiment.saes[down]
    g = experiment.readings.g[down][batch.index].to(value.device)
    f = sae.encode(value.float())
    error = ((value.float() - sae.decode(f)) * g).sum(-1, keepdim=True)
    return torch.cat([f[..., nodes.union] * (g @ sae.directions[nodes.union].detach().T), error], dim=-1)


@torch.no_grad()
def _effects(
    experiment: Experiment, up: Site, union: Tensor, changes: tuple[Tensor, Tensor], gradients: Tensor
) -> Tensor:
    """Return what upstream nodes add times gradients [k, batch, n_positions, d_model]: [k, batch, n_union + 1]."""
    change, error = changes
    features = (change * (gradients @ experiment.saes[up].directions[union].T)).sum(2)
    return torch.cat([features, (error * gradients).sum((2, 3))[..., None]], dim=-1)


def _edges(number: int, nodes: dict[Site, Nodes], means: Weights, threshold: float) -> list[Edge]:
    """Return the edges of one circuit that reach the threshold, in the order of the sites."""
    edges = []
    for (up, down), weights in sorted(means.items()):
        ups, downs = (_ids(site, nodes[site], number) for site in (up, down))
        block = weights[: len(downs), number].cpu().numpy()[:, [place for place, _ in ups]]  # [downs, ups]
        features = block[[place < len(nodes[down].union) for place, _ in downs]]
        features = features[:, [place < len(nodes[up].union) for place, _ in ups]]
        strongest = np.abs(features).max(initial=0.0) or np.abs(block).max(initial=0.0)
        edges += [
            Edge(ups[j][1], downs[i][1], float(block[i, j]), float(block[i, j] / strongest))
            for i, j in np.argwhere(np.abs(block) >= max(threshold * strongest, np.finfo(np.float32).tiny))
        ]
    return edges


def _ids(site: Site, nodes: Nodes, number: int) -> list[tuple[int, str]]:
    """Return one circuit's nodes at a site: place among all circuits' nodes, and id."""
    features = [*nodes.union.tolist(), ERROR]
    return [(place, f"{site}/{features[place]}") for place in nodes.own[number].tolist() if place >= 0]
