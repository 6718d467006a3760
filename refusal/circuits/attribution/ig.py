"""Integrated gradients: as ``atp``, with the gradient averaged on the way from the baseline to the activations.

One site at a time is moved on the straight line from x0 = decode(f0) + e0 to x = decode(f) + e, features and error
together, while the rest of the model runs as it does. The sum over the site's nodes then is m(x) - m(x0), up to the
error of the midpoint rule (completeness).

Source: Sundararajan et al. 2017, arXiv 1703.01365; Hanna et al. 2024, arXiv 2403.17806 (EAP-IG).
"""

from __future__ import annotations

import torch
from torch import Tensor

from refusal.circuits.attribution.atp import along
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances
from refusal.models.gradients import differentiating
from refusal.models.hooks import editing
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch


def attribute(experiment: Experiment, *, steps: int = 10) -> dict[Site, Importances]:
    """Return every site's importances, in nats.

    Args:
        experiment: The prompts.
        steps: Points on the line at which the gradient is taken.
    """
    gradients = {site: torch.empty_like(x) for site, x in experiment.readings.x.items()}
    for batch in experiment.batches():
        for site in experiment.sites:
            gradients[site][batch.index] = _mean_gradient(experiment, batch, site, steps).float().cpu()
    return along(experiment, gradients)


def _mean_gradient(experiment: Experiment, batch: SuffixBatch, site: Site, steps: int) -> Tensor:
    """Return the gradient [batch, n_positions, d_model], averaged over the middles of equal parts of the line."""
    end = experiment.readings.x[site][batch.index].to(experiment.chat.device)
    start = experiment.baseline_x(site, batch.index)
    total = torch.zeros_like(end)
    for step in range(steps):
        point = torch.lerp(start, end, (step + 0.5) / steps).requires_grad_()
        with (
            differentiating(experiment.chat.model),
            editing(experiment.chat.model, {site: lambda x, point=point: point.to(x.dtype)}),
        ):
            total += torch.autograd.grad(experiment.score(batch).sum(), point)[0]
    return total / steps
