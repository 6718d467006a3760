"""Activation patching: put one feature at its baseline, run the model again, and see how far the score falls.

What ``atp`` and ``ig`` estimate, and are checked against. Only the features that ``atp`` ranks highest are patched,
the same ones on every prompt; the others count as 0.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from refusal.circuits.attribution import atp
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances
from refusal.models.hooks import editing
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch


def attribute(experiment: Experiment, *, candidates: int = 200) -> dict[Site, Importances]:
    """Return every site's importances, in nats: m(x) - m(x with that node alone at its baseline).

    Args:
        experiment: The prompts.
        candidates: Number of features patched at each site.
    """
    estimate = atp.attribute(experiment)
    chosen = {site: ranked(estimate[site], candidates) for site in experiment.sites}
    n_prompts = len(experiment.encoded)
    effects = {site: np.zeros((n_prompts, len(features) + 1), np.float32) for site, features in chosen.items()}
    # A pass over few prompts costs as much as one over many: prompts are repeated, each copy with its own feature.
    lanes = max(1, experiment.batch_size // n_prompts)
    repeated = experiment.subset(np.tile(np.arange(n_prompts), lanes))
    for batch in repeated.batches():
        prompt, lane = batch.index % n_prompts, batch.index // n_prompts
        for site in experiment.sites:
            for first in range(0, len(chosen[site]) + 1, lanes):
                column = np.minimum(first + lane, len(chosen[site]))  # the last column is the error node
                patch = _patch(repeated, site, batch.index, np.append(chosen[site], -1)[column])
                effects[site][prompt, column] = _fall(repeated, batch, site, patch)
    return {site: _importances(site, effects[site], chosen[site], estimate[site]) for site in experiment.sites}


def ranked(estimate: Importances, n: int) -> np.ndarray:
    """Return the n features of the largest mean |importance| over the prompts; those without any are left out."""
    strength = np.asarray(abs(estimate.values).sum(axis=0)).ravel()
    order = np.argsort(-strength, kind="stable")[:n]
    return order[strength[order] > 0]


def total_effect(experiment: Experiment) -> dict[Site, np.ndarray]:
    """Return m(x) - m(x with the whole site at its baseline) on each prompt, for each site [n_prompts]."""
    effects = {site: np.zeros(len(experiment.encoded), np.float32) for site in experiment.sites}
    for batch in experiment.batches():
        for site in experiment.sites:
            patch = experiment.readings.x[site][batch.index].to(experiment.chat.device)
            patch = patch - experiment.baseline_x(site, batch.index)
            effects[site][batch.index] = _fall(experiment, batch, site, patch)
    return effects


@torch.no_grad()
def _patch(experiment: Experiment, site: Site, rows: np.ndarray, features: np.ndarray) -> Tensor:
    """Return what each prompt's own node (-1: the error) adds over its baseline, [batch, n_positions, d_model]."""
    _, f, e = experiment.split(site, rows)
    f0, e0 = experiment.baseline_rows(site, rows)
    node = torch.from_numpy(features).to(f.device)
    index = node.clamp(min=0)
    change = (f - f0).gather(2, index[:, None, None].expand(-1, f.shape[1], 1))  # [batch, n_positions, 1]
    written = change * experiment.saes[site].directions[index][:, None]
    return torch.where((node < 0)[:, None, None], e - e0, written)


@torch.no_grad()
def _fall(experiment: Experiment, batch: SuffixBatch, site: Site, patch: Tensor) -> np.ndarray:
    """Return how far the score falls when the patch is taken away from the site, [batch]."""
    with editing(experiment.chat.model, {site: lambda x: x - patch.to(x.dtype)}):
        return (experiment.readings.scores[batch.index] - experiment.score(batch).cpu()).numpy()


def _importances(site: Site, effects: np.ndarray, features: np.ndarray, estimate: Importances) -> Importances:
    values = sparse.lil_array(estimate.values.shape, dtype=np.float32)
    values[:, features] = effects[:, :-1]
    return Importances(str(site), sparse.csr_array(values), effects[:, -1])
