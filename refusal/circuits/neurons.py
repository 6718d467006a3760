"""What a circuit has to beat: as many neurons of the MLPs, for which no autoencoder is needed.

A neuron is an entry of what the MLP's last linear map reads. Its importance is that of ``atp``: (a - a0) dm/da, summed
over the chosen positions, on average over the circuit's prompts; a0 is the baseline of the category. For each circuit
the strongest are chosen, over all layers that have a site, as many as it has features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.baseline import shares
from refusal.circuits.circuit import ERROR, Circuit
from refusal.circuits.edges import prompts_of
from refusal.circuits.experiment import Experiment
from refusal.models.gradients import differentiating
from refusal.models.hooks import Edit, editing_neurons


@dataclass(frozen=True)
class Neurons:
    """Some neurons for each circuit."""

    chosen: Mapping[int, Tensor]
    """By layer, bool [n_circuits, d_mlp]."""
    levels: Mapping[int, Tensor]
    """By layer, a0 [n_circuits, n_positions, d_mlp]."""

    def removed(self, owner: np.ndarray) -> dict[int, Edit]:
        """Return the edits that set the neurons of each prompt's own circuit to their baseline."""

        def edit(layer: int) -> Edit:
            chosen, level = self.chosen[layer][owner][:, None], self.levels[layer][owner]
            return lambda a: torch.where(chosen.to(a.device), level.to(a), a)

        return {layer: edit(layer) for layer in self.chosen}


def strongest(train: Experiment, circuits: Sequence[Circuit]) -> Neurons:
    """Choose the neurons that stand for circuits, from one forward and one backward pass."""
    layers = sorted({site.layer for site in train.sites})
    level, slope, product = (dict.fromkeys(layers, torch.zeros(())) for _ in range(3))
    baseline = torch.from_numpy(shares(train, train.reference.kind, [circuit.category for circuit in circuits]))
    own = torch.zeros_like(baseline)  # each prompt's weight in the mean of each circuit's prompts
    for row, circuit in enumerate(circuits):
        prompts = prompts_of(train, circuit)
        own[row, prompts] = 1 / max(len(prompts), 1)
    for rows, activations, gradients in _read(train, layers):
        for layer in layers:
            a, g = activations[layer], gradients[layer]
            level[layer] = level[layer] + torch.einsum("cn,ntd->ctd", baseline[:, rows], a)
            slope[layer] = slope[layer] + torch.einsum("cn,ntd->ctd", own[:, rows], g)
            product[layer] = product[layer] + torch.einsum("cn,ntd->ctd", own[:, rows], a * g)
    importance = {layer: (product[layer] - level[layer] * slope[layer]).sum(1) for layer in layers}
    return Neurons(_chosen(importance, circuits), level)


def _read(
    train: Experiment, layers: Sequence[int]
) -> Iterator[tuple[np.ndarray, dict[int, Tensor], dict[int, Tensor]]]:
    """Yield the prompts of each batch with their neurons and dm/da, both by layer [batch, n_positions, d_mlp]."""
    seen: dict[int, Tensor] = {}

    def watch(layer: int, a: Tensor) -> Tensor:
        seen.setdefault(layer, a if a.requires_grad else a.requires_grad_())
        return a

    edits = {layer: lambda a, layer=layer: watch(layer, a) for layer in layers}
    for batch in train.batches():
        with differentiating(train.chat.model), editing_neurons(train.chat.model, edits):
            m = train.score(batch)
            gradients = torch.autograd.grad(m.sum(), [seen[layer] for layer in layers])
        activations = {layer: seen[layer].detach().float().cpu() for layer in layers}
        seen.clear()
        yield batch.index, activations, {layer: g.float().cpu() for layer, g in zip(layers, gradients, strict=True)}


def _chosen(importance: Mapping[int, Tensor], circuits: Sequence[Circuit]) -> dict[int, Tensor]:
    """Mark each circuit's strongest neurons, as many as it has features, by layer bool [n_circuits, d_mlp]."""
    layers = list(importance)
    strength = torch.cat([importance[layer] for layer in layers], 1).abs()
    chosen = torch.zeros_like(strength, dtype=torch.bool)
    for row, circuit in enumerate(circuits):
        n_features = sum(node.feature != ERROR for node in circuit.nodes)
        chosen[row, strength[row].argsort(descending=True, stable=True)[:n_features]] = True
    return dict(zip(layers, chosen.split([importance[layer].shape[1] for layer in layers], 1), strict=True))
