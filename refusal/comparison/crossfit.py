"""Means of some prompts for use on others, so that nothing is tested on a prompt that it comes from.

Prompts are in parts. What is used on a part comes from all the others: with four parts a direction comes from three
quarters of the prompts, with halves from half of them, but then there are two that have no prompt in common, whose
disagreement shows the error of a direction (:mod:`refusal.comparison.direction_noise`).

A centre, however, comes from the part itself: it shares the error of its mean with directions from the same prompts,
which would look like a mechanism of its own (on a real model with 20 prompts a half, T = 0.36 instead of 0.76).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from refusal.comparison.contrast import Contrast

N_QUARTERS = 4


@dataclass(frozen=True)
class CrossFit:
    """The prompts of a contrast in parts."""

    contrast: Contrast
    part: np.ndarray
    """Which part each prompt is in, int [n_prompts]."""

    @property
    def n_parts(self) -> int:
        """Number of parts."""
        return int(self.part.max(initial=0)) + 1

    def difference(self, values: np.ndarray) -> np.ndarray:
        """Return refused minus complied means of values [n_prompts, ...] for use on each part, from all the others.

        Shape [n_parts, n_categories, ...]; a mean over no prompts counts as zero.
        """
        return self._means(values, self._others(), refused=True) - self._means(values, self._others(), refused=False)

    def pooled_difference(self, values: np.ndarray) -> np.ndarray:
        """Return the same from all prompts, the part's own among them: what no estimate from others can exceed."""
        everyone = np.full((self.n_parts, len(self.part)), True)
        return self._means(values, everyone, refused=True) - self._means(values, everyone, refused=False)

    def centre(self, values: np.ndarray) -> np.ndarray:
        """Return the means over each part's own complied prompts, shape and gaps as above."""
        return self._means(values, ~self._others(), refused=False)

    def noise_scale(self) -> np.ndarray:
        """Return 1 / n_refused + 1 / n_complied of each difference, [n_parts, n_categories]; none counts as one."""
        rows = self._others()[:, None] & (self.contrast.category == np.arange(len(self.contrast.categories))[:, None])
        n_refused, n_complied = ((rows & (self.contrast.refused == kind)).sum(-1) for kind in (True, False))
        return 1 / np.maximum(n_refused, 1) + 1 / np.maximum(n_complied, 1)

    def _others(self) -> np.ndarray:
        """Return whether a prompt is outside each part, bool [n_parts, n_prompts]."""
        return self.part != np.arange(self.n_parts)[:, None]

    def _means(self, values: np.ndarray, prompts: np.ndarray, *, refused: bool) -> np.ndarray:
        contrast = self.contrast
        means = np.zeros((self.n_parts, len(contrast.categories), *values.shape[1:]), dtype=np.float32)
        for part, category in np.ndindex(means.shape[:2]):
            rows = prompts[part] & (contrast.category == category) & (contrast.refused == refused)
            if rows.any():
                means[part, category] = values[rows].mean(0)
        return means


def halves(contrast: Contrast) -> CrossFit:
    """Return the contrast's own two halves."""
    return CrossFit(contrast, contrast.half)


def quarters(contrast: Contrast) -> CrossFit:
    """Deal the prompts of each category, refused and complied ones apart, into four parts in turn."""
    part = np.zeros(len(contrast.category), dtype=int)
    for category, refused in np.ndindex(len(contrast.categories), 2):
        rows = np.flatnonzero((contrast.category == category) & (contrast.refused == bool(refused)))
        part[rows] = np.arange(len(rows)) % N_QUARTERS
    return CrossFit(contrast, part)
