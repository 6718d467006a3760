"""Refused against complied prompts of each category, in two halves: what transfer is measured on.

P_c are the refused prompts of category c, toxic and hard alike; N_c the complied ones of all splits, so that
the topic cancels in the difference of their means (:mod:`refusal.comparison.crossfit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refusal.models.chat import Encoded

N_HALVES = 2


@dataclass(frozen=True)
class Contrast:
    """The prompts of a study, as arrays over prompts."""

    categories: list[str]
    prompts: Sequence[Encoded]
    category: np.ndarray
    """Index into ``categories``, int [n_prompts]."""
    refused: np.ndarray
    """bool [n_prompts]"""
    half: np.ndarray
    """0 or 1, int [n_prompts]."""
    score: np.ndarray
    """Refusal score m, float [n_prompts], nats."""
    writes: np.ndarray
    """What each block's attention (0) and MLP (1) wrote at the last position, [n_prompts, n_layers, 2, d_model]."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.writes.shape[1]

    def rows(self, *, refused: bool) -> np.ndarray:
        """Return the prompts (indices) that were refused, or complied with, of categories that can be measured."""
        return np.flatnonzero((self.refused == refused) & self.measurable[self.category])

    def count(self, *, refused: bool) -> np.ndarray:
        """Return the number of refused, or complied, prompts of each category."""
        return np.bincount(self.category[self.refused == refused], minlength=len(self.categories))

    @property
    def measurable(self) -> np.ndarray:
        """Whether each category has both kinds of prompts in both halves, bool [n_categories]."""
        counts = np.zeros((len(self.categories), 2, N_HALVES), dtype=int)
        np.add.at(counts, (self.category, self.refused.astype(int), self.half), 1)
        return np.all(counts >= 2, axis=(1, 2))

    def effect(self) -> np.ndarray:
        """Return mean m over P_c minus mean m over N_c for each category, in nats; NaN where one is empty."""
        effects = np.full(len(self.categories), np.nan)
        for category in range(len(self.categories)):
            mine = self.category == category
            if (mine & self.refused).any() and (mine & ~self.refused).any():
                effects[category] = self.score[mine & self.refused].mean() - self.score[mine & ~self.refused].mean()
        return effects
