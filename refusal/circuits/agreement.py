"""How far a method can be trusted here: against patching, on a sample of the prompts.

Two questions for each site: does the method rank features as ``exact`` does, and is what it attributes to the whole
site what the site does?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from refusal.circuits.attribution import atp, exact
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances
from refusal.models.sites import Site


@dataclass(frozen=True)
class Agreement:
    """One line of the table."""

    site: str
    spearman: float | None
    """Rank correlation with ``exact`` over the strongest features; None where fewer than 3 have any effect."""
    attributed: float
    """Mean sum of the site's importances, error included (nats, but for ``stats``)."""
    measured: float
    """Mean m(x) - m(x with the site at its baseline), nats."""


def agreement(
    experiment: Experiment,
    importances: Mapping[Site, Importances],
    *,
    rng: np.random.Generator,
    n_prompts: int = 32,
    candidates: int = 32,
) -> list[Agreement]:
    """Compare a method with patching on randomly chosen refused prompts; one line for each site.

    Args:
        experiment: The prompts.
        importances: What the method gave for them.
        rng: Draws the sample.
        n_prompts: Size of the sample.
        candidates: Features patched at each site: those that ``atp`` ranks highest.
    """
    refused = np.flatnonzero(experiment.refused)
    rows = np.sort(rng.choice(refused, min(n_prompts, len(refused)), replace=False))
    if not len(rows):
        return []
    sample = experiment.subset(rows)
    truth = exact.attribute(sample, candidates=candidates)
    effects = exact.total_effect(sample)
    estimate = atp.attribute(sample)
    lines = []
    for site in sample.sites:
        chosen = exact.ranked(estimate[site], candidates)
        given, true = importances[site].mean(rows)[chosen], truth[site].mean(np.arange(len(rows)))[chosen]
        attributed = float(importances[site].total[rows].mean())
        lines.append(Agreement(str(site), _spearman(given, true), attributed, float(effects[site].mean())))
    return lines


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.asarray(spearmanr(a, b))[0])
