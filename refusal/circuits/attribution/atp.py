"""Attribution patching: the first-order effect of putting a feature at its baseline, for all features at once.

importance_i = (f_i - f0_i) (direction_i . g), and (e - e0) . g for the error node, with g = dm/dx at the site in the
unspliced model, summed over the chosen positions.

Source: Nanda 2023, Attribution patching; Marks et al. 2024, arXiv 2403.19647, equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances, from_rows
from refusal.models.sites import Site


def attribute(experiment: Experiment) -> dict[Site, Importances]:
    """Return every site's importances, in nats, from the gradients that the experiment holds already."""
    return along(experiment, experiment.readings.g)


def along(experiment: Experiment, gradients: Mapping[Site, Tensor]) -> dict[Site, Importances]:
    """Return change times gradient for each node.

    Args:
        experiment: The prompts.
        gradients: For each site [n_prompts, n_positions, d_model].
    """
    return {site: _of_site(experiment, site, gradients[site]) for site in experiment.sites}


@torch.no_grad()
def _of_site(experiment: Experiment, site: Site, gradient: Tensor) -> Importances:
    directions = experiment.saes[site].directions
    values, errors = [], []
    for rows in experiment.chunks():
        _, f, e = experiment.split(site, rows)
        f0, e0 = experiment.baseline_rows(site, rows)
        g = gradient[rows].to(f.device)
        values.append(((f - f0) * (g @ directions.T)).sum(1).cpu().numpy())  # [batch, d_sae]
        errors.append(((e - e0) * g).sum((1, 2)).cpu().numpy())  # [batch]
    return from_rows(site, values, errors)
