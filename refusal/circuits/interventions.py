"""Run a model with a part of its nodes live and every other node at its baseline.

At each site of the experiment, at the attributed positions, the features that are live are computed from the
stream as it now is, the others are set to f0; so is the error to e0, unless it is live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.circuit import ERROR, Circuit
from refusal.circuits.experiment import Experiment
from refusal.models.hooks import Edit
from refusal.models.sites import Site


@dataclass(frozen=True)
class Live:
    """Which nodes are live, for each circuit: for each site bool [n_circuits, d_sae + 1], the error node last."""

    nodes: Mapping[Site, Tensor]

    def inverted(self) -> Live:
        """Return the other nodes."""
        return Live({site: ~live for site, live in self.nodes.items()})

    def with_errors(self) -> Live:
        """Return the same features, and every error node."""
        return Live(
            {site: torch.cat([live[:, :-1], torch.ones_like(live[:, -1:])], 1) for site, live in self.nodes.items()}
        )


def live_in(circuits: Sequence[Circuit], n_features: Mapping[Site, int]) -> Live:
    """Return the circuits' own nodes.

    Args:
        circuits: One for each row of the result.
        n_features: d_sae of each site.
    """
    nodes = {site: torch.zeros(len(circuits), size + 1, dtype=torch.bool) for site, size in n_features.items()}
    by_name = {str(site): site for site in n_features}
    for row, circuit in enumerate(circuits):
        for node in circuit.nodes:
            nodes[by_name[node.site]][row, -1 if node.feature == ERROR else node.feature] = True
    return Live(nodes)


def leaving(experiment: Experiment, rows: np.ndarray, owner: np.ndarray, live: Live) -> dict[Site, Edit]:
    """Return the edits that leave only the live nodes of each prompt's own circuit.

    Args:
        experiment: The prompts, and the baseline that the other nodes are set to.
        rows: The prompts of the batch that is run.
        owner: The circuit (row of ``live``) of each of them.
        live: The nodes that stay.
    """
    return {site: _edit(experiment, site, rows, live.nodes[site][owner]) for site in experiment.sites}


def joined(experiment: Experiment, rows: Sequence[np.ndarray]) -> tuple[Experiment, np.ndarray]:
    """Return the prompts of several circuits as one experiment, and the number of each prompt's circuit."""
    owner = np.repeat(np.arange(len(rows)), [len(numbers) for numbers in rows])
    return experiment.subset(np.concatenate(rows)), owner


def _edit(experiment: Experiment, site: Site, rows: np.ndarray, live: Tensor) -> Edit:
    sae = experiment.saes[site]
    f0, e0 = experiment.baseline_rows(site, rows)
    live = live.to(f0.device)[:, None]  # [batch, 1, d_sae + 1]
    keeps_errors = bool(live[..., -1].any())

    @torch.no_grad()
    def edit(x: Tensor) -> Tensor:
        f = sae.encode(x.float())
        error = torch.where(live[..., -1:], x.float() - sae.decode(f), e0) if keeps_errors else e0
        return (sae.decode(torch.where(live[..., :-1], f, f0)) + error).to(x.dtype)

    return edit
