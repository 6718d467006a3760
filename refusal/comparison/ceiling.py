"""Noise ceiling: how similar would a category be to itself, measured from as few prompts?

1. Split the category's prompts into two random halves, many times, and take the similarity of their mean importances.
2. The halves are half as many prompts as the category has: the Spearman-Brown formula 2 r / (1 + r) corrects their
   mean similarity to the full number. That is the ceiling.
3. Two categories' similarity, divided by the root of the product of their ceilings, estimates what endless prompts
   would show. It may exceed 1 by chance, and is left so; under a ceiling of 0.3 there is none.

Without it, few prompts look modular. The correction is exact for cosines, an approximation for other measures.

Source: Spearman 1904 and 1910, Brown 1910.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from refusal.comparison.similarity import Matrix, Measure

MIN_CEILING = 0.3


def noise_ceiling(
    importances: np.ndarray | sparse.csr_array,
    measure: Measure,
    *,
    rng: np.random.Generator,
    splits: int = 100,
    **options: object,
) -> float | None:
    """Return the ceiling in [0, 1] of one category; None with fewer than two prompts, or without importance.

    Args:
        importances: Of the category's prompts, [n_prompts, n_features].
        measure: See :mod:`refusal.comparison.similarity`.
        rng: Draws the halves.
        splits: How many times.
        **options: Handed on to the measure.
    """
    n_prompts = importances.sum(1).size
    n_half = n_prompts // 2
    if n_half == 0:
        return None
    chosen = rng.permuted(np.tile(np.arange(n_prompts) < n_half, (splits, 1)), axis=1)
    ones = (chosen / n_half) @ importances  # means, [splits, n_features]
    others = (~chosen / (n_prompts - n_half)) @ importances
    similarities = [measure(one, other, **options) for one, other in zip(ones, others, strict=True)]
    found = [similarity for similarity in similarities if similarity is not None]
    if not found:
        return None
    mean = max(0.0, float(np.mean(found)))
    return 2 * mean / (1 + mean)


def noise_ceilings(
    importances: np.ndarray | sparse.csr_array,
    category: np.ndarray,
    n_categories: int,
    measure: Measure,
    *,
    rng: np.random.Generator,
    splits: int = 100,
    **options: object,
) -> list[float | None]:
    """Return the ceiling of each category, from all prompts' importances [n_prompts, n_features].

    ``category`` is the index of each prompt's category, int [n_prompts]; the rest as in :func:`noise_ceiling`.
    """
    rows = [np.flatnonzero(category == c) for c in range(n_categories)]
    return [noise_ceiling(importances[own], measure, rng=rng, splits=splits, **options) for own in rows]


def corrected(raw: Matrix, ceilings: Sequence[float | None]) -> Matrix:
    """Return raw / sqrt(ceiling_A ceiling_B); None where a ceiling is missing or under 0.3; 1 on the diagonal."""
    values: Matrix = [[None] * len(raw) for _ in raw]
    for i, of_a in enumerate(ceilings):
        for j, of_b in enumerate(ceilings):
            similarity = raw[i][j]
            if similarity is None or of_a is None or of_b is None or min(of_a, of_b) < MIN_CEILING:
                continue
            values[i][j] = 1.0 if i == j else similarity / float(np.sqrt(of_a * of_b))
    return values
