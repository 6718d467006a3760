"""Correlation of each feature with refusing, within a category: no intervention, no gradient.

The weak baseline that earlier work used. Between n_1 refused and n_0 complied prompts of a category (n together), a
feature with means M_1 and M_0 and standard deviation s over all n has the point-biserial correlation
(M_1 - M_0) / s * sqrt(n_1 n_0) / n, in [-1, 1]: the standardised mean difference, kept finite where the classes
separate completely. On one prompt the importance is (f - M_0) / s * sqrt(n_1 n_0) / n, so that the mean over
the category's refused prompts is that correlation. With baseline ``zero``, M_0 is replaced by 0. f is averaged
over the chosen positions; the error node is represented by the norm of the error. The unit is not the nat.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances, from_rows
from refusal.models.sites import Site

CONSTANT = 1e-9
"""A feature whose variance is a smaller share of its mean square than this does not vary: it only rounds."""


def attribute(experiment: Experiment) -> dict[Site, Importances]:
    """Return every site's importances as each prompt's share in a correlation with ``refused``."""
    categories = experiment.reference.categories
    pairs = [(experiment.rows(name, refused=True), experiment.rows(name, refused=False)) for name in categories]
    return {site: _of_site(experiment, site, pairs) for site in experiment.sites}


def _of_site(experiment: Experiment, site: Site, pairs: list[tuple[np.ndarray, np.ndarray]]) -> Importances:
    level = torch.cat([_level(experiment, site, rows) for rows in experiment.chunks()])  # [n_prompts, d_sae + 1]
    for refused, complied in pairs:
        rows = np.concatenate([refused, complied])
        level[rows] = _standardised(level[rows], len(refused), from_zero=experiment.reference.kind == "zero")
    return from_rows(site, [level[:, :-1].numpy()], [level[:, -1].numpy()])


def _level(experiment: Experiment, site: Site, rows: np.ndarray) -> Tensor:
    """Return f averaged over positions, with the norm of the error as one more column, [batch, d_sae + 1]."""
    _, f, e = experiment.split(site, rows)
    return torch.cat([f, e.norm(dim=-1, keepdim=True)], dim=-1).mean(1).cpu()


def _standardised(level: Tensor, n_refused: int, *, from_zero: bool) -> Tensor:
    """Return the importances of one category, whose refused prompts come first, [n, d_sae + 1]."""
    n = len(level)
    n_complied = n - n_refused
    if n_refused == 0 or n_complied == 0:
        return torch.zeros_like(level)
    variance = level.double().var(0, unbiased=False)
    varies = variance > CONSTANT * level.double().square().mean(0)
    factor = np.sqrt(n_refused * n_complied) / n / variance.sqrt()
    centre = torch.zeros_like(variance) if from_zero else level[n_refused:].double().mean(0)
    return torch.where(varies, (level - centre) * factor, 0.0).float()
