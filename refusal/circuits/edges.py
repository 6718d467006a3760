"""Join a circuit's nodes: what an upstream node contributes to the refusal score through a downstream node, directly.

The weight of up -> down on a prompt is (f_up - f0_up) * d f_down / d f_up * d m / d f_down, gradients stopped at
every chosen site between the two, at the same position; averaged over the circuit's prompts. One forward pass in
which each site's tensor is cut from its past gives all the direct derivatives; backward pass number j starts, on each
prompt, from the j-th node that the prompt's own circuit has at the site, so that circuits cost together what
the largest costs. An error node counts like a feature: upstream it adds e - e0, downstream it is e . g.

Source: Marks et al. 2024, arXiv 2403.19647, section 3.1 and appendix A.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.circuit import ERROR, Circuit, Edge, Node, on_side
from refusal.circuits.experiment import Experiment
from refusal.circuits.interventions import joined
from refusal.models.gradients import differentiating
from refusal.models.hooks import editing
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch


class Run(NamedTuple):
    """One batch in which every site was cut."""

    rows: np.ndarray
    """The prompts' numbers, [batch]."""
    nodes: dict[Site, Tensor]
    """Features that each prompt's own circuit has at a site, int64 [batch, most nodes]; ERROR also fills up."""
    values: dict[Site, Tensor]
    """What the sites computed from the leaves before them, [batch, n_positions, d_model]."""
    leaves: dict[Site, Tensor]
    """The same values, as the rest of the model saw them."""


def with_edges(experiment: Experiment, circuits: Sequence[Circuit], *, threshold: float) -> list[Circuit]:
    """Return the circuits with their edges.

    Args:
        experiment: The prompts that the circuits' nodes were chosen on.
        circuits: Circuits of different categories or sides.
        threshold: An edge is kept if it reaches this share of the strongest edge between features of its two sites.
    """
    rows = [prompts_of(experiment, circuit) for circuit in circuits]
    part, numbers = joined(experiment, rows)
    device = part.chat.device
    owner = torch.from_numpy(numbers).to(device)
    tables = {site: _table(circuits, site).to(device) for site in part.sites}
    sums: dict[tuple[Site, Site], Tensor] = {}  # [n_circuits, most downstream nodes, most upstream nodes]
    for batch in part.batches():
        of_prompt = owner[batch.index]
        with _cut(part, batch, {site: table[of_prompt] for site, table in tables.items()}) as run:
            for pair, effects in _batch_effects(part, run):
                shape = (len(circuits), *effects.shape[1:])
                sums.setdefault(pair, torch.zeros(shape, device=device)).index_add_(0, of_prompt, effects)
    counts = torch.tensor([max(len(own), 1) for own in rows], device=device)[:, None, None]
    means = {pair: (total / counts).cpu().numpy() for pair, total in sums.items()}
    return [
        replace(circuit, edges=tuple(_edges(circuit, {pair: each[number] for pair, each in means.items()}, threshold)))
        for number, circuit in enumerate(circuits)
    ]


def prompts_of(experiment: Experiment, circuit: Circuit) -> np.ndarray:
    """Return the prompts that a circuit is about: those of its category that are on its side, int64."""
    in_category = np.asarray(experiment.categories) == circuit.category
    split = np.asarray(experiment.splits or [""] * len(in_category))
    return np.flatnonzero(in_category & on_side(circuit.side, split, np.asarray(experiment.refused)))


def _at(circuit: Circuit, site: Site) -> list[Node]:
    return [node for node in circuit.nodes if node.site == str(site)]


def _table(circuits: Sequence[Circuit], site: Site) -> Tensor:
    """Return the features that each circuit has at a site, int64 [n_circuits, most nodes], filled up with ERROR."""
    features = [[node.feature for node in _at(circuit, site)] for circuit in circuits]
    table = torch.full((len(circuits), max(map(len, features))), ERROR)
    for row, own in enumerate(features):
        table[row, : len(own)] = torch.tensor(own, dtype=torch.long)
    return table


@contextmanager
def _cut(experiment: Experiment, batch: SuffixBatch, nodes: dict[Site, Tensor]) -> Iterator[Run]:
    """Run the batch with the gradient stopped at every site; backward passes belong inside."""
    run = Run(batch.index, nodes, {}, {})

    def cut(site: Site, value: Tensor) -> Tensor:
        leaf = value.detach().requires_grad_()
        run.values.setdefault(site, value)
        run.leaves.setdefault(site, leaf)
        return leaf

    edits = {site: lambda value, site=site: cut(site, value) for site in experiment.sites}
    with differentiating(experiment.chat.model), editing(experiment.chat.model, edits):
        batch.logits()
        yield run


def _batch_effects(experiment: Experiment, run: Run) -> list[tuple[tuple[Site, Site], Tensor]]:
    """Return, for each pair of sites, the weights [batch, most downstream nodes, most upstream nodes]."""
    found = []
    occupied = [site for site in experiment.sites if run.nodes[site].shape[1]]
    for number, down in enumerate(occupied):
        if run.values[down].requires_grad:
            for up, gradients in _jacobian(experiment, run, occupied[:number], down).items():
                found.append(((up, down), torch.einsum("kbtd,btud->bku", gradients, _written(experiment, run, up))))
    return found


def _jacobian(experiment: Experiment, run: Run, upstream: Sequence[Site], down: Site) -> dict[Site, Tensor]:
    """Return d (f_down d m / d f_down) / d x_up, [most nodes, batch, n_positions, d_model], by upstream site.

    Sites that do not reach ``down`` directly are left out.
    """
    targets = _targets(experiment, run, down).sum(0)  # [n_positions, most nodes]: prompts do not mix
    leaves = [run.leaves[site] for site in upstream]
    found: dict[Site, Tensor] = {}
    for position, place in np.ndindex(*targets.shape) if leaves else ():
        gradients = torch.autograd.grad(targets[position, place], leaves, retain_graph=True, allow_unused=True)
        for site, gradient in zip(upstream, gradients, strict=True):
            if gradient is None:
                continue
            if site not in found:
                found[site] = gradient.new_zeros(targets.shape[1], *gradient.shape, dtype=torch.float32)
            found[site][place, :, position] = gradient[:, position]
    return found


def _targets(experiment: Experiment, run: Run, down: Site) -> Tensor:
    """Return f_down d m / d f_down of each prompt's own nodes, e . g for the error, [batch, n_positions, most nodes].

    d m / d f_down and g are constants: those of the unspliced model.
    """
    sae, nodes = experiment.saes[down], run.nodes[down]
    g = experiment.readings.g[down][run.rows].to(nodes.device)
    features = nodes.clamp(min=0)
    with torch.enable_grad():
        x = run.values[down].float()
        f = sae.encode(x)
        own = f.gather(2, features[:, None].expand(-1, f.shape[1], -1))
        worth = torch.einsum("btd,bkd->btk", g, sae.directions[features].detach())
        error = ((x - sae.decode(f)) * g).sum(-1, keepdim=True)
        return torch.where((nodes == ERROR)[:, None], error, own * worth)


@torch.no_grad()
def _written(experiment: Experiment, run: Run, up: Site) -> Tensor:
    """Return what each prompt's own nodes add over their baseline, [batch, n_positions, most nodes, d_model]."""
    nodes = run.nodes[up]
    features = nodes.clamp(min=0)
    _, f, e = experiment.split(up, run.rows)
    f0, e0 = experiment.baseline_rows(up, run.rows)
    change = (f - f0).gather(2, features[:, None].expand(-1, f.shape[1], -1))
    written = change[..., None] * experiment.saes[up].directions[features][:, None]
    return torch.where((nodes == ERROR)[:, None, :, None], (e - e0)[:, :, None], written)


def _edges(circuit: Circuit, means: dict[tuple[Site, Site], np.ndarray], threshold: float) -> list[Edge]:
    """Return the edges of one circuit that reach the threshold, in the order of the sites."""
    edges = []
    for (up, down), weights in sorted(means.items()):
        ups, downs = _at(circuit, up), _at(circuit, down)
        block = weights[: len(downs), : len(ups)]
        of_features = block[[node.feature != ERROR for node in downs]][:, [node.feature != ERROR for node in ups]]
        strongest = np.abs(of_features).max(initial=0.0) or np.abs(block).max(initial=0.0)
        edges += [
            Edge(ups[j].id, downs[i].id, float(block[i, j]), float(block[i, j] / strongest))
            for i, j in np.argwhere((np.abs(block) >= threshold * strongest) & (block != 0))
        ]
    return edges
