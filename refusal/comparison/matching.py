"""Which features of two separately trained autoencoders are the same: an optimal assignment of decoder directions.

1. Pair the directions one to one so that the sum of the pairs' cosines is largest; pairs under 0.7 count nothing, and
   are none.
2. A feature without a partner is another feature: what it contributes counts as disjoint.
3. With the pairs next to each other, and those without a partner after them, importances can be compared by any
   measure of :mod:`refusal.comparison.similarity` that needs no directions.

Source: Kuhn 1955 (assignment); Paulo & Belrose 2025, arXiv 2501.16615 (between seeds, about 30 % of features recur).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

MIN_COSINE = 0.7
"""Directions further apart are not the same feature (Paulo & Belrose 2025, section 3)."""


@dataclass(frozen=True)
class Matching:
    """Pairs of features of two autoencoders."""

    first: np.ndarray
    """Features of the first, int [n_pairs]."""
    second: np.ndarray
    """Their partners in the second, int [n_pairs]."""
    cosine: np.ndarray
    """Between the partners' directions, [n_pairs]."""


def match(first: np.ndarray, second: np.ndarray, *, min_cosine: float = MIN_COSINE) -> Matching:
    """Return the best pairs of decoder directions [n_features, d_model], each feature in one pair at most."""
    cosine = _unit(first) @ _unit(second).T
    rows, columns = linear_sum_assignment(np.where(cosine >= min_cosine, cosine, 0.0), maximize=True)
    found = cosine[rows, columns]
    alike = found >= min_cosine
    return Matching(rows[alike], columns[alike], found[alike])


def aligned(first: np.ndarray, second: np.ndarray, matching: Matching) -> tuple[np.ndarray, np.ndarray]:
    """Return importances [..., n_first] and [..., n_second] over the same features, n_first + n_second - n_pairs.

    Pairs come first, then what only the first has (0 in the second), then what only the second has.
    """
    of_first = np.setdiff1d(np.arange(first.shape[-1]), matching.first)
    of_second = np.setdiff1d(np.arange(second.shape[-1]), matching.second)
    return (
        np.concatenate([first[..., matching.first], first[..., of_first], np.zeros_like(second[..., of_second])], -1),
        np.concatenate([second[..., matching.second], np.zeros_like(first[..., of_first]), second[..., of_second]], -1),
    )


def _unit(directions: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.divide(directions, length, out=np.zeros_like(directions, dtype=float), where=length > 0)
