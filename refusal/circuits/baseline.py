"""What a feature is compared with: zero, or its mean over the complied prompts of the same category.

With the mean of the same category the topic cancels, and what is left is what separates refusing from complying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.models.sites import Site

if TYPE_CHECKING:
    from refusal.circuits.experiment import Experiment

MIN_COMPLIED = 2
"""With fewer complied prompts than this, a category takes the mean over those of all categories."""


@dataclass(frozen=True)
class Baseline:
    """f0 and e0 of each category, at each position."""

    kind: str
    """``mean`` or ``zero``."""
    categories: tuple[str, ...]
    """What the first dimension counts."""
    features: dict[Site, Tensor]
    """f0, [n_categories, n_positions, d_sae]."""
    errors: dict[Site, Tensor]
    """e0, [n_categories, n_positions, d_model]."""


def baseline_of(experiment: Experiment, kind: str) -> Baseline:
    """Compute the baseline of an experiment's prompts.

    Raises:
        InputError: The kind is unknown, or ``mean`` is asked for and no prompt was complied with.
    """
    categories = tuple(sorted(set(experiment.categories)))
    weights = shares(experiment, kind, categories)
    features: dict[Site, Tensor] = {}
    errors: dict[Site, Tensor] = {}
    for site in experiment.sites:
        features[site], errors[site] = _weighted(experiment, site, torch.from_numpy(weights))
    return Baseline(kind, categories, features, errors)


def shares(experiment: Experiment, kind: str, categories: Sequence[str]) -> np.ndarray:
    """Return each prompt's weight in the baseline of each category, float32 [n_categories, n_prompts].

    Raises:
        InputError: The kind is unknown, or ``mean`` is asked for and no prompt was complied with.
    """
    if kind == "zero":
        return np.zeros((len(categories), len(experiment.encoded)), dtype=np.float32)
    if kind != "mean":
        raise InputError(f"unknown circuits.baseline={kind}; one of mean, zero")
    complied = ~np.asarray(experiment.refused, dtype=bool)
    if not complied.any():
        raise InputError(
            "the model complied with no prompt, so there is no mean to compare with; circuits.baseline=zero"
        )
    own = np.asarray(experiment.categories)[None] == np.asarray(categories)[:, None]
    counted = own & complied
    counted[counted.sum(axis=1) < MIN_COMPLIED] = complied
    return (counted / counted.sum(axis=1, keepdims=True)).astype(np.float32)


def _weighted(experiment: Experiment, site: Site, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted sums of f [n_categories, n_positions, d_sae] and e [n_categories, n_positions, d_model]."""
    f0: Tensor | float = 0.0
    e0: Tensor | float = 0.0
    for rows in experiment.chunks():
        _, f, e = experiment.split(site, rows)
        share = weights[:, rows].to(f.device)
        f0 = f0 + torch.einsum("cn,ntf->ctf", share, f)
        e0 = e0 + torch.einsum("cn,ntd->ctd", share, e)
    assert isinstance(f0, Tensor)
    assert isinstance(e0, Tensor)
    return f0, e0
